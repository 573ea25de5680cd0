"""Makes PEFT know MMPT, VPT and the key-value prefix: `import mmpt_bench.peft`, before or after `import peft`.

    import mmpt_bench.peft
    from peft import PeftModel
    model = PeftModel.from_pretrained(base, FOLDER)

PEFT has no plug-in mechanism; this import registers the methods, and imports torch.
"""

from mmpt_bench.engine.prompts.peft import KVPrefixConfig, MMPTConfig, VPTConfig

__all__ = ["KVPrefixConfig", "MMPTConfig", "VPTConfig"]
