"""The two sides of a game as the optimizer and the files see them: groups, parameters, what is kept of each."""

from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from .._peft import PREFIX
from ..adversary import FeatureStore, StyleDiscriminator
from ..arguments import StyleTrainingArguments
from ..data import prompt_ids
from ..game import GameRules, StyleGame, Writer, frozen_copy, width_of
from ..inference import pad_id, prompt_of
from ..model import styles_of
from ..replay import ReplayBuffer
from .sharding import spread_like, whole

DISCRIMINATOR_FILE = "discriminator.safetensors"
HEAD = "discriminator."
GATES = tuple(PREFIX + table for table in ("gate", "feature", "noise"))


def build_game(
    model: PeftModel,
    args: StyleTrainingArguments,
    discriminator: StyleDiscriminator | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    unpaired: bool,
) -> StyleGame:
    """The game that `args` describes; without a discriminator where nothing would use it."""
    n_styles, plays = len(styles_of(model)), args.plays
    if discriminator is None and plays:
        discriminator = StyleDiscriminator(
            width_of(model),
            n_styles,
            kind=args.discriminator_kind,
            width=args.discriminator_width,
            spectral_norm=args.discriminator_spectral_norm,
        )
    if args.w_div > 0 and not styles_of(model).noise_dim:
        raise ValueError(
            f"w_div={args.w_div} must be 0 for an adapter without noise; set noise_dim in StyleAdapterConfig"
        )
    keeps, replays = plays and args.feature_store != "none", plays and args.replay_size
    return StyleGame(
        model,
        discriminator if plays else None,
        rules_of(args, unpaired=unpaired),
        writer=writer_of(model, args, tokenizer),
        backbone=frozen_copy(model) if plays and args.discriminator_copy else None,
        store=FeatureStore(args.feature_store, str(args.output_dir)) if keeps else None,
        replay=ReplayBuffer(args.replay_size, n_styles, seed=args.seed) if replays else None,
    )


def rules_of(args: StyleTrainingArguments, *, unpaired: bool) -> GameRules:
    """The rules that `args` describe, for rows that are paired or not."""
    return GameRules(
        game=args.game,
        depth=args.discriminator_blocks,
        smoothing=args.discriminator_smoothing or 0.0,
        r1=args.w_r1 > 0,
        r2=args.w_r2 > 0,
        prototype_rate=args.prototype_rate,
        fakes=args.fakes or ("sampled" if unpaired else "teacher_forced"),
        estimator=args.estimator,
        temperature=args.temperature,
        top_k=args.estimator_top_k,
        matching=args.feature_matching,
        back_translation=unpaired and args.w_bt > 0,
        kl=args.w_kl > 0,
        preference=args.preference_beta if args.w_pref > 0 else 0.0,
        diversity=args.w_div > 0,
        discount=args.reward_discount,
        replay=args.replay_fraction if args.replay_size else 0.0,
    )


def writer_of(model: PeftModel, args: StyleTrainingArguments, tokenizer: PreTrainedTokenizerBase) -> Writer:
    """What samples fakes, and asks for rewrites of them as inference does."""
    prompt = prompt_of(model)

    def fill(texts: list[list[int]]) -> list[list[int]]:
        plain = [text.strip() for text in tokenizer.batch_decode(texts, skip_special_tokens=True)]
        return prompt_ids(tokenizer, prompt, plain)

    end = tokenizer.eos_token_id
    longest = args.eval_max_new_tokens if args.task == "generation" else None  # a prompt says nothing of its text
    return Writer(
        fill,
        pad_id(tokenizer),
        -1 if end is None else end,
        temperature=args.sampling_temperature,
        top_k=args.sampling_top_k,
        top_p=args.sampling_top_p,
        room=args.sampling_length or longest,
    )


def parameter_groups(
    game: StyleGame, args: StyleTrainingArguments, defaults: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The optimizer's groups, each trainable tensor in exactly one; empty groups left out."""
    adapter, judge = sides_of(game)
    of_gates = {id(p) for n, p in game.named_parameters() if any(gate in n for gate in GATES)}
    rest = [p for p in adapter if id(p) not in of_gates]
    gate_rate = args.gate_learning_rate if args.gate_learning_rate is not None else 10 * args.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
        {"params": [p for p in adapter if id(p) in of_gates], "weight_decay": 0.0, "lr": gate_rate},
    ]
    side: dict[str, Any] = {"params": judge, "lr": args.discriminator_learning_rate}
    side["weight_decay"] = args.discriminator_weight_decay
    if "betas" in defaults:
        second = args.discriminator_beta2
        side["betas"] = (args.discriminator_beta1, defaults["betas"][1] if second is None else second)
    return [group for group in (*groups, side) if group["params"]]


def sides_of(game: StyleGame) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of the generator and of the discriminator."""
    judge = [] if game.discriminator is None else [p for p in game.discriminator.parameters() if p.requires_grad]
    ids = set(map(id, judge))
    return [p for p in game.parameters() if p.requires_grad and id(p) not in ids], judge


def discriminator_state(game: StyleGame) -> dict[str, Tensor]:
    """The discriminator's weights, whole, and the game's memory, as one flat dict; a call of every process."""
    assert game.discriminator is not None
    weights = {HEAD + n: whole(t.detach()) for n, t in game.discriminator.state_dict().items()}
    return {name: tensor.contiguous() for name, tensor in (weights | game.memory.state_dict()).items()}


def load_discriminator_state(game: StyleGame, state: Mapping[str, Tensor]) -> None:
    """Takes over what `discriminator_state` gave."""
    assert game.discriminator is not None
    own = game.discriminator.state_dict()
    mine = {name.removeprefix(HEAD): tensor for name, tensor in state.items() if name.startswith(HEAD)}
    game.discriminator.load_state_dict({name: spread_like(tensor, own[name]) for name, tensor in mine.items()})
    game.memory.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(HEAD)})
