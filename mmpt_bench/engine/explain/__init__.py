"""What an answer rests on: maps over image tokens, and what becomes of the answer without some of them."""
