"""`python -m mmpt_bench`: the command line."""

from mmpt_bench.cli.main import main

main()
