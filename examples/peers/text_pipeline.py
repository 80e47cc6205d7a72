"""transformers' pipelines: pass `styles` on to `generate`, or open the style around the call.

    python examples/peers/text_pipeline.py
    python examples/peers/text_pipeline.py --model HuggingFaceTB/SmolLM2-135M-Instruct

The adapter is random here, to show that styles differ; `style_adapter.load(folder)` gives a trained one. Styles one a
prompt need all prompts in one batch. A pipeline that does not generate (text-classification) hands its options to the
tokenizer, which drops `styles` without a word: open the style around it.
"""

from collections.abc import Sequence

from peft import get_peft_model
from tiny import STYLES, WORDS, arguments, load
from transformers import pipeline

from style_adapter import StyleAdapterConfig, styled


def main(argv: Sequence[str] | None = None) -> dict[str, list[str]]:
    args = arguments(__doc__, argv)
    backbone, tokenizer = load(args.model)
    config = StyleAdapterConfig(styles=STYLES, target_modules="all-linear", init_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(backbone, config).eval()
    say = pipeline("text-generation", model=model, tokenizer=tokenizer, max_new_tokens=4, return_full_text=False)
    prompts, mixed = list(WORDS), [STYLES[i % 2] for i in range(len(WORDS))]

    said = {"loud": say(prompts, styles="loud", do_sample=False)}
    with styled(model, "calm"):
        said["calm"] = say(prompts, do_sample=False)
    said["one a prompt"] = say(prompts, styles=mixed, batch_size=len(prompts), do_sample=False)

    texts = {how: [found[0]["generated_text"] for found in results] for how, results in said.items()}
    print(texts)
    return texts


if __name__ == "__main__":
    main()
