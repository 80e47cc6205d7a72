"""sentence-transformers: an encoder with a style adapter, trained in the style that each data set is named after.

    python examples/peers/sentence_encoder.py
    python examples/peers/sentence_encoder.py --model sentence-transformers/all-MiniLM-L6-v2 --max_steps 100

`encode` sorts its texts by length, so styles one a row would meet other rows: encode one style at a time, or call the
model on features of your own, `model({**model.preprocess(texts), "styles": [...]})`. A column of styles would be taken
for one more text. Losses that run the encoder again in backward (the Cached ones) do so outside the style of the batch,
and on a GPU in another thread: they train the adapter's `default_style` alone.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny import STYLES, WORDS, arguments, tiny_tokenizer
from torch import Tensor
from transformers import BertConfig, BertModel, set_seed

from style_adapter import StyleAdapterConfig, styled


class StyledTrainer(SentenceTransformerTrainer):
    """Each batch comes from one data set and trains the style of that name."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss in the style of the batch."""
        with styled(self.model, inputs.pop("dataset_name")):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def should_dataset_name_column_be_added(self, *args: Any, **kwargs: Any) -> bool:
        """Yes: left to itself it adds the name only where losses differ by data set."""
        return True


def main(argv: Sequence[str] | None = None) -> dict[str, Tensor]:
    args = arguments(__doc__, argv, max_steps=60)
    set_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = SentenceTransformer(args.model) if args.model else tiny_encoder(folder)
    model.add_adapter(StyleAdapterConfig(styles=STYLES, target_modules="all-linear"))
    data = {
        style: Dataset.from_dict({"anchor": list(WORDS), "positive": [said[i] for said in WORDS.values()]})
        for i, style in enumerate(STYLES)
    }
    trainer = StyledTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir="runs/sentence_encoder",
            max_steps=args.max_steps,
            learning_rate=1e-2,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=DatasetDict(data),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    found = {style: similarity(model, style, data[style]) for style in STYLES}
    print({style: [round(value, 2) for value in cosines.tolist()] for style, cosines in found.items()})
    return found


def similarity(model: SentenceTransformer, style: str, data: Dataset) -> Tensor:
    """Cosine of each anchor to its positive [rows], both encoded in `style`."""
    with styled(model, style):
        anchors, positives = (model.encode(list(data[c]), convert_to_tensor=True) for c in ("anchor", "positive"))
    return torch.cosine_similarity(anchors, positives)


def tiny_encoder(folder: str) -> SentenceTransformer:
    """A random BERT of two blocks over whole words, with mean pooling, written to `folder` and read from there."""
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "right"  # BERT counts positions from the left
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=len(tokenizer), num_attention_heads=2, max_position_embeddings=32, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return SentenceTransformer(modules=[Transformer(folder), Pooling(32)], device="cpu")


if __name__ == "__main__":
    main()
