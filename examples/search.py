"""A search over both learning rates, the weights of the game and the kind of noise, with optuna.

    pip install "style_adapter[search]"   # after `make quickstart`, which sets up the environment and the backbone
    python examples/search.py             # 4 short trials on 64 verses: minutes on two CPU cores

Each trial builds adapter, discriminator and game anew, and trains a few steps; its value is the style score of verses
that it has not seen. Trials are kept in `runs/search/study.db`: started again, the search goes on from them. Beside it
stand `history.png`, the value of each trial, and `options.png`, the value against each option. So few steps on so few
verses rank options roughly: give more of both, and more trials, to choose by.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import optuna
import torch
from kjv_data import load_verse_pairs, transfer_dataset
from matplotlib import pyplot
from optuna.visualization.matplotlib import plot_optimization_history, plot_slice
from peft import PeftModel, get_peft_model
from smollm2 import load_smollm2

from style_adapter import StyleAdapterConfig, StyleTrainer, StyleTrainingArguments

PROMPT = "<|im_start|>user\nRewrite: {source}<|im_end|>\n<|im_start|>assistant\n"


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    pairs = load_verse_pairs(max_words=16)
    step = len(pairs["train"]) // options.verses
    trainer = StyleTrainer(
        model_init=fresh_adapter,
        args=training_arguments(options),
        train_dataset=transfer_dataset(pairs["train"][::step][: options.verses]),
        eval_dataset=transfer_dataset(pairs["dev"][:8]),
        processing_class=load_smollm2()[1],
    )
    best = trainer.hyperparameter_search(
        hp_space=space,
        compute_objective=lambda metrics: metrics["eval_style_score"],
        direction="maximize",
        n_trials=options.trials,
        backend="optuna",
        storage=f"sqlite:///{options.output}/study.db",
        study_name="search",
        load_if_exists=True,
    )
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{options.output}/study.db")
    for trial in study.trials:
        print(f"trial {trial.number}: {trial.value}  {trial.params}")
    print(f"best: trial {best.run_id} with {best.objective:.3f}; give these options to a longer run")
    print(f"see {', '.join(map(str, plot(study, options.output)))}")


def plot(study: optuna.Study, folder: Path) -> list[Path]:
    """Optuna's own pictures: the value of each trial, with the best one so far, and the value against each option."""
    drawn = {"history": (plot_optimization_history, 8), "options": (plot_slice, 22)}  # and inches
    paths = []
    for name, (draw, width) in drawn.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            draw(study, target_name="style score")
        paths.append(folder / f"{name}.png")
        pyplot.gcf().set_size_inches(width, 5)
        pyplot.savefig(paths[-1], dpi=120, bbox_inches="tight")
        pyplot.close()
    return paths


def space(trial: optuna.Trial) -> dict[str, Any]:
    """Options of StyleTrainingArguments, by their names."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 5e-3, log=True),
        "discriminator_learning_rate": trial.suggest_float("discriminator_learning_rate", 1e-4, 1e-3, log=True),
        "w_adv": trial.suggest_float("w_adv", 0.01, 0.2, log=True),
        "w_feat": trial.suggest_float("w_feat", 0.0, 0.3),
    }


def fresh_adapter(trial: optuna.Trial | None = None) -> PeftModel:
    """What is no training argument is drawn here: the adapter's own options."""
    kinds = ["none", "gaussian", "uniform"]
    noise = kinds[0] if trial is None else trial.suggest_categorical("noise_type", kinds)
    config = StyleAdapterConfig(
        styles=["modern", "kjv"],
        r=8,
        alpha=16,
        noise_type=noise,
        noise_dim=0 if noise == "none" else 4,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        prompt=PROMPT,
    )
    return get_peft_model(load_smollm2(dtype=torch.bfloat16)[0], config)


def training_arguments(options: argparse.Namespace) -> StyleTrainingArguments:
    return StyleTrainingArguments(
        output_dir=str(options.output),
        max_steps=options.steps,
        per_device_train_batch_size=8,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        adversary_start=options.steps // 2,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=options.steps,
        eval_samples=16,
        save_strategy="no",
        logging_steps=5,
        dataloader_pin_memory=False,
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/search"), help="folder (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=4, help="trials to add (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=16, help="steps a trial (default: %(default)s)")
    parser.add_argument("--verses", type=int, default=64, help="verses to train on (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
