"""A small tokenizer.json like GPT-2's: byte-level BPE, its pieces cut across the characters of other scripts."""

from pathlib import Path
from pydoc_data.topics import topics

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PIECES = 600
# these characters share first and last byte, so that merging the last of one with the first of the next pays most
ALIKE = "".join(chr(0x6025 + 0x40 * (number * 7 % 60)) for number in range(60))
FOREIGN = f"日本語だけの文章です。“引用” 😀😃😄🇫🇷 é è ê — 漢字と仮名。{ALIKE}日本の言語。" * 4


def make_tokenizer_json(folder: Path) -> Path:
    """``folder`` with a tokenizer.json of PIECES pieces, <|endoftext|> among them."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*sorted(topics.values()), FOREIGN], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"))
    return folder
