"""board/writers"""
