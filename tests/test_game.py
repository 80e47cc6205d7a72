"""The game's one forward: its terms against the model's own loss, and which weights each term moves."""

import copy

import datasets
import pytest
import torch
from training_fixtures import (
    PAD,
    adapted,
    bert_tagger,
    byte_tokenizer,
    gpt2,
    gpt2_classifier,
    gpt2_tagger,
    llama,
    llama_tagger,
    masked_bert,
    randomised,
    style_encoder,
    t5,
    toy_batch,
    toy_rows,
)

from style_adapter import StyleBank
from style_adapter.adversary import StyleDiscriminator, find_blocks
from style_adapter.data import ClassificationCollator, tokenize_classification, tokenize_token_classification
from style_adapter.functional import IGNORED
from style_adapter.game import (
    DISCRIMINATOR_TERMS,
    FrozenFeatures,
    GameRules,
    Lesson,
    StyleGame,
    dense_weights,
    frozen_copy,
)
from style_adapter.game.fakes import ESTIMATES, Fakes
from style_adapter.model import styled
from style_adapter.style import StyleCode

BACKBONES = {"llama": (llama, "CAUSAL_LM"), "gpt2": (gpt2, "CAUSAL_LM"), "t5": (t5, "SEQ_2_SEQ_LM")}


def make_game(kind: str = "llama", *, judge: bool = True, adapter: dict | None = None, **options) -> StyleGame:
    """A game on a tiny backbone, its adapter random."""
    backbone, task_type = BACKBONES[kind]
    model = randomised(adapted(backbone(), task_type=task_type, **(adapter or {})))
    torch.manual_seed(1)
    discriminator = StyleDiscriminator(32, 2, width=16) if judge else None
    own = {name: options.pop(name) for name in ("backbone", "writer", "store", "replay") if name in options}
    return StyleGame(model, discriminator, GameRules(depth=1, **options), **own).train()


def adapter_parameters(game: StyleGame) -> list[torch.nn.Parameter]:
    return [p for p in game.model.parameters() if p.requires_grad]


def own_loss(model, batch, row: int) -> torch.Tensor:
    """The model's own mean loss on one row, its tokens unpadded: what transformers computes from labels."""
    kept = batch["attention_mask"][row].bool()
    target = batch["labels"][row][batch["labels"][row] != IGNORED]
    ids = batch["input_ids"][row][kept]
    labels = (
        target if model.config.is_encoder_decoder else torch.cat([torch.full_like(ids, IGNORED), target])[-len(ids) :]
    )
    return model(input_ids=ids[None], labels=labels[None], styles=["loud", "calm"][row % 2]).loss * len(target)


# The likelihood


@pytest.mark.parametrize("kind", BACKBONES)
def test_ce_of_each_row_equals_the_models_own_loss(kind):
    game = make_game(kind).eval()
    batch = toy_batch(game.model)
    expected = torch.stack([own_loss(game.model, batch, row) for row in range(4)])
    torch.testing.assert_close(game(play=False, **batch).rows["ce"], expected)
    assert expected.std() > 0.1


def test_ce_of_classes_equals_the_models_own_loss():
    rows = datasets.Dataset.from_dict(
        {"text": ["ab", "c", "def"], "label": [1, 0, 2], "style": ["loud", "calm", "loud"]}
    )
    model = randomised(adapted(gpt2_classifier(num_labels=3), task_type="SEQ_CLS", modules_to_save=["score"]))
    game, bank = StyleGame(model, None), StyleBank(("loud", "calm"))
    tokens = tokenize_classification(rows, byte_tokenizer())
    batch = ClassificationCollator(PAD, style_encoder(bank))(list(tokens))
    own = [
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["label"]]), styles=row["style"]).loss
        for row in tokens
    ]
    torch.testing.assert_close(game(**batch).rows["ce"], torch.stack(own))


@pytest.mark.parametrize("backbone", [bert_tagger, gpt2_tagger, llama_tagger])
def test_ce_of_words_equals_the_models_own_loss(backbone):
    rows = datasets.Dataset.from_dict(
        {"text": ["ab c", "c", "d é f"], "label": [[1, 2], [0], [2, IGNORED, 1]], "style": ["loud", "calm", "loud"]}
    )
    model = randomised(adapted(backbone(num_labels=3), task_type="TOKEN_CLS")).eval()
    game = StyleGame(model, None)
    tokens = tokenize_token_classification(rows, byte_tokenizer())
    batch = ClassificationCollator(PAD, style_encoder(StyleBank(("loud", "calm"))))(list(tokens))
    own = [
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["label"]]), styles=row["style"]).loss
        for row in tokens
    ]
    counts = torch.tensor([2, 1, 2])
    torch.testing.assert_close(game(**batch).rows["ce"], torch.stack(own) * counts)
    nothing = batch | {"labels": torch.full_like(batch["labels"], IGNORED)}
    assert game(**nothing).rows["ce"].tolist() == [0.0, 0.0, 0.0]


def test_ce_of_masked_tokens_equals_the_models_own_loss_and_the_vocabularys_head_reads_them_alone():
    tokens = [
        {"input_ids": [5, 258, 7, 258], "label": [IGNORED, 6, IGNORED, 9], "style": "loud", "row_id": 0},
        {"input_ids": [8, 9], "label": [8, IGNORED], "style": "calm", "row_id": 1},
    ]
    model = randomised(adapted(masked_bert(), task_type=None)).eval()
    batch = ClassificationCollator(PAD, style_encoder(StyleBank(("loud", "calm"))))(tokens)
    own = [
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["label"]]), styles=row["style"]).loss
        for row in tokens
    ]
    read = []
    head = model.get_base_model().get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: read.append(tuple(output.shape)))
    torch.testing.assert_close(StyleGame(model, None)(**batch).rows["ce"], torch.stack(own) * torch.tensor([2, 1]))
    handle.remove()
    assert read == [(3, 259)]


def test_padding_and_neighbours_do_not_change_a_row():
    game = make_game().eval()
    rows = toy_rows(["a", "bcdefg"])
    alone = torch.cat([game(play=False, **toy_batch(game.model, rows.select([i]))).rows["ce"] for i in range(4)])
    torch.testing.assert_close(game(play=False, **toy_batch(game.model, rows)).rows["ce"], alone)


def test_ce_is_the_sum_of_token_losses_times_their_weights():
    game = make_game().eval()
    batch = toy_batch(game.model)
    weights = torch.rand(batch["labels"].shape)
    single = torch.stack(
        [
            game(play=False, **batch | {"token_weights": torch.eye(weights.shape[1])[[column] * 4]}).rows["ce"]
            for column in range(weights.shape[1])
        ],
        dim=1,
    )  # [row, column]: 0 at padding
    found = game(play=False, **batch | {"token_weights": weights}).rows["ce"]
    torch.testing.assert_close(found, (single * weights).sum(1))


# The frozen features


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("depth", [1, 2])
def test_features_equal_the_hidden_states_of_the_frozen_backbone(kind, depth):
    backbone, task_type = BACKBONES[kind]
    noisy = {"llama": {"attention_dropout": 0.5}, "gpt2": {"resid_pdrop": 0.5}, "t5": {"dropout_rate": 0.5}}[kind]
    plain = backbone(**noisy).eval()
    model = randomised(adapted(copy.deepcopy(plain), task_type=task_type)).train()
    features = FrozenFeatures(model, depth)
    ids, mask = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[True] * 3, [True, True, False]])
    encoder = plain.get_encoder() if kind == "t5" else plain.base_model
    layers = torch.nn.ModuleList(encoder.block if kind == "t5" else getattr(encoder, "h", None) or encoder.layers)
    kept = []
    handle = layers[depth - 1].register_forward_hook(
        lambda m, a, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    states = encoder(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    handle.remove()
    expected = states[depth] if depth < len(layers) else kept[0]  # the last one is shown after the final norm
    for style in ("loud", "calm"):
        with styled(model, style):
            found = features(features.embed(ids[mask], mask), mask)
        torch.testing.assert_close(found[mask], expected[mask])
    assert model.training
    with styled(model, "loud"):
        assert not torch.allclose(model(input_ids=ids, labels=ids).logits, plain(input_ids=ids, labels=ids).logits)


def test_embedded_logits_are_the_embeddings_of_the_likeliest_tokens():
    game = make_game()
    mask = torch.tensor([[True, True], [True, False]])
    logits = torch.randn(3, 258)
    hard = game.features.embed(logits.argmax(-1), mask)
    lesson = Lesson.of(toy_batch(game.model), StyleCode(torch.zeros(4, 2, dtype=torch.long), torch.ones(4, 2)))
    fakes = Fakes(lesson, logits, torch.zeros(4, dtype=torch.long))
    tokens, embedded = ESTIMATES["straight_through"](fakes, game.features.table, GameRules())
    assert torch.equal(tokens, logits.argmax(-1))
    torch.testing.assert_close(game.features.place(embedded, mask), hard)


# Which weights a term moves


def settled(game: StyleGame, batch) -> dict[str, torch.Tensor]:
    """The terms of a step that knows every style's prototype."""
    game(**batch)
    game.prototypes.commit()
    return game(**batch).rows


@pytest.mark.parametrize("options", [{}, {"game": "relativistic"}, {"r1": True}], ids=["default", "relativistic", "r1"])
def test_each_sides_terms_move_that_side_alone(options):
    game = make_game(**options)
    terms = settled(game, toy_batch(game.model))
    sides = {"generator": adapter_parameters(game), "discriminator": list(game.discriminator.parameters())}
    expected = {
        "generator": ("ce", "adv", "feat", "cls"),
        "discriminator": DISCRIMINATOR_TERMS[: 3 if "r1" in options else 2],
    }
    assert set(terms) == {*expected["generator"], *expected["discriminator"]}
    for side, names in expected.items():
        other = sides["discriminator" if side == "generator" else "generator"]
        for name in names:
            moved = torch.autograd.grad(terms[name].sum(), sides[side], allow_unused=True, retain_graph=True)
            still = torch.autograd.grad(terms[name].sum(), other, allow_unused=True, retain_graph=True)
            assert all(g is None for g in still), name
            assert any(g is not None and g.abs().max() > 0 for g in moved), name


def test_every_trainable_tensor_gets_a_gradient_from_the_whole_loss():
    game = make_game()
    sum(rows.sum() for rows in settled(game, toy_batch(game.model)).values()).backward()
    for name, parameter in game.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def stepped(term: str, sign: float) -> tuple[float, float]:
    """Mean of (realness, style loss) of the fakes after some steps on the adapter that lower sign * term."""
    game = make_game()
    batch = toy_batch(game.model)
    optimizer = torch.optim.Adam(adapter_parameters(game), lr=3e-2)
    for _ in range(25):
        optimizer.zero_grad()
        (sign * game(**batch).rows[term].mean()).backward()
        optimizer.step()
    losses = game(**batch)
    return losses.scores["fake"].mean().item(), losses.rows["cls"].mean().item()


def test_the_adversarial_gradient_makes_fakes_look_real_and_its_opposite_the_contrary():
    before = make_game()
    start = before(**toy_batch(before.model)).scores["fake"].mean().item()
    assert stepped("adv", 1.0)[0] > start + 0.1
    assert stepped("adv", -1.0)[0] < start - 0.1


def test_the_style_gradient_makes_fakes_show_their_style_and_its_opposite_the_contrary():
    before = make_game()
    start = before(**toy_batch(before.model)).rows["cls"].mean().item()
    assert stepped("cls", 1.0)[1] < start - 0.02
    assert stepped("cls", -1.0)[1] > start + 0.02


def test_one_small_step_raises_the_realness_of_the_expected_fake():
    """The gradient is that of the soft mixture p @ E at the hard embedding: so the soft fake must move with it."""
    game = make_game()
    batch = toy_batch(game.model)
    mask, style = batch["labels"] != IGNORED, torch.eye(2)[batch["style_ids"][:, 0]]
    lesson = Lesson.of(batch, StyleCode(batch["style_ids"], batch["style_weights"]))
    table = game.features.embedding.weight.detach()

    def push() -> torch.Tensor:
        """dL_G/d(embedding) at the hard fake, fixed, times the soft fake: what a step must lower."""
        logits = game.generator.logits(lesson)
        return (logits.softmax(-1) @ table * slope[mask]).sum()

    fakes = Fakes(lesson, game.generator.logits(lesson), batch["seeds"])
    _, hard = ESTIMATES["straight_through"](fakes, table, GameRules())
    fake = game.features.place(hard, mask).detach().requires_grad_()
    realness = game.discriminator(game.features(fake, mask), mask, style).realness
    (slope,) = torch.autograd.grad(-torch.nn.functional.logsigmoid(realness).sum(), fake)
    expected = torch.autograd.grad(push(), adapter_parameters(game), allow_unused=True)
    found = torch.autograd.grad(game(**batch).rows["adv"].sum(), adapter_parameters(game), allow_unused=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    before = push().item()
    with torch.no_grad():
        for parameter, gradient in zip(adapter_parameters(game), found, strict=True):
            parameter.sub_(1e-4 * gradient)
    assert push().item() < before


# Warm-up, rows that nobody judges


@pytest.mark.parametrize("quiet", ["warm-up", "no judged row"])
def test_without_a_game_the_discriminator_gets_zero_gradients_and_the_adapter_those_of_ce_alone(quiet):
    alone = make_game(judge=False)
    batch = toy_batch(alone.model, fraction=1.0 if quiet == "warm-up" else 0.0)
    alone(**batch).rows["ce"].sum().backward()
    game = make_game()
    losses = game(play=quiet != "warm-up", **batch)
    assert set(losses.rows) == {"ce"}
    losses.rows["ce"].sum().backward()
    for parameter in game.discriminator.parameters():
        assert parameter.grad is not None
        assert parameter.grad.count_nonzero() == 0
    for one, other in zip(adapter_parameters(game), adapter_parameters(alone), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert any(p.grad.abs().max() > 0 for p in adapter_parameters(game))


def test_only_judged_rows_are_judged():
    game = make_game()
    rows = toy_rows(["ab", "cde", "f", "gh"])
    batch = toy_batch(game.model, rows, fraction=0.5)
    count = int(batch["judged"].sum())
    assert 0 < count < 8
    losses = game(**batch).rows
    assert losses["ce"].shape == (8,)
    assert losses["adv"].shape == losses["d_adv"].shape == (count,)
    everyone = game(**toy_batch(game.model, rows)).rows
    torch.testing.assert_close(losses["d_adv"], everyone["d_adv"][batch["judged"]])


# Checkpointing, noise, prototypes, options


@pytest.mark.parametrize("kind", BACKBONES)
def test_gradients_under_checkpointing_equal_those_without(kind):
    found, runs = {}, {}
    for checkpointing in (False, True):
        game = make_game(kind)
        batch = toy_batch(game.model)
        if checkpointing:
            game.activation_checkpointing_enable()
        calls = []
        layer = next(m for n, m in game.named_modules() if n.endswith("base_layer"))
        layer.register_forward_hook(lambda *args, calls=calls: calls.append(1))
        sum(rows.sum() for rows in game(**batch).rows.values()).backward()
        found[checkpointing] = [p.grad for p in game.parameters() if p.requires_grad]
        runs[checkpointing] = len(calls)
    assert runs[True] == runs[False] + 1  # the block was run again in backward
    torch.testing.assert_close(found[True], found[False])


def test_noise_reaches_the_gate():
    game = make_game(adapter={"noise_dim": 3})
    batch, noise = toy_batch(game.model), torch.randn(4, 3)
    zero, loud = (game(play=False, noise=z, **batch).rows["ce"] for z in (torch.zeros(4, 3), noise))
    drawn = game(play=False, **batch).rows["ce"]
    assert torch.equal(drawn, game(play=False, noise=game.generator.noise(batch), **batch).rows["ce"])
    assert min((loud - zero).abs().min(), (drawn - zero).abs().min()) > 1e-3
    loud.sum().backward()
    tables = [p.grad for n, p in game.named_parameters() if "style_adapter_noise" in n]
    assert tables
    assert all(grad.abs().max() > 0 for grad in tables)


def test_prototypes_are_the_mean_features_of_real_texts_of_a_style():
    game, rows = make_game(), toy_rows(["ab", "cde"])
    game.eval()
    game(**toy_batch(game.model, rows))
    game.prototypes.commit()
    assert not game.prototypes.known(torch.eye(2)).any()  # evaluation teaches them nothing
    game.train()
    game(**toy_batch(game.model, rows))
    game.prototypes.commit()
    plain, tokenizer = llama().eval(), byte_tokenizer()
    for style, name in enumerate(["loud", "calm"]):
        phi = []
        for target in (row["target"] for row in rows if row["style"] == name):
            ids = torch.tensor([[*tokenizer(target)["input_ids"], tokenizer.eos_token_id]])
            hidden = plain(ids, output_hidden_states=True).hidden_states[1]
            phi.append(game.discriminator(hidden, torch.ones_like(ids), torch.eye(2)[[style]]).pooled[0])
        torch.testing.assert_close(game.prototypes(torch.eye(2))[style], torch.stack(phi).mean(0))


def test_a_depth_that_the_backbone_lacks_is_refused_before_any_step():
    model = adapted()
    with pytest.raises(ValueError, match=r"depth=3 must be between 0 and 2, .* set discriminator_blocks in"):
        StyleGame(model, StyleDiscriminator(32, 2), GameRules(depth=3))
    StyleGame(model, None, GameRules(depth=3))  # nobody reads so far


def test_dense_weights_add_up_by_style():
    code = StyleCode(torch.tensor([[1, 0], [1, 1]]), torch.tensor([[0.7, 0.0], [0.5, 0.25]]))
    torch.testing.assert_close(dense_weights(code, 3), torch.tensor([[0.0, 0.7, 0.0], [0.0, 0.75, 0.0]]))


# A backbone that trains too


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_discriminator_does_not_read_what_trains(kind):
    backbone, task_type = BACKBONES[kind]
    judge = StyleDiscriminator(32, 2, width=16)
    for options in ({"trainable": "all"}, {"bias": "all"} if kind == "gpt2" else {"trainable": "all"}):
        model = adapted(backbone(), task_type=task_type, **options)
        with pytest.raises(ValueError, match=r"must be frozen, and .* trains .* backbone=frozen_copy\(model\)"):
            StyleGame(model, judge, GameRules(depth=1))
        StyleGame(model, None, GameRules(depth=1))  # nobody reads
        StyleGame(model, judge, GameRules(depth=1), backbone=frozen_copy(model))
    later = adapted(backbone(), task_type=task_type)
    find_blocks(FrozenFeatures(later, 1).backbone)[1].requires_grad_(True)
    StyleGame(later, judge, GameRules(depth=1))  # the block behind what is read


@pytest.mark.parametrize("kind", BACKBONES)
def test_features_of_an_own_backbone_equal_the_adapted_ones_and_stay_while_it_trains(kind):
    frozen_game = make_game(kind)
    game = make_game(kind, adapter={"trainable": "all"}, backbone=frozen_copy(frozen_game.model))
    batch = toy_batch(game.model)
    expected, found = frozen_game(**batch), game(**batch)
    for name, rows in expected.rows.items():
        torch.testing.assert_close(found.rows[name], rows)
    mask = batch["labels"] != IGNORED
    read = game.features.embed(batch["labels"][mask], mask)
    before = game.features(read, mask)
    optimizer = torch.optim.SGD([p for p in game.parameters() if p.requires_grad], 0.1)
    sum(game(**batch).rows[name].sum() for name in ("ce", "adv", "feat", "cls")).backward()
    optimizer.step()
    assert torch.equal(game.features(game.features.embed(batch["labels"][mask], mask), mask), before)
    assert not torch.allclose(game(**batch).rows["ce"], found.rows["ce"])
    moved = [n for n, p in game.model.named_parameters() if p.grad is not None and "style_adapter_" not in n]
    assert len(moved) > 5


def test_the_generators_side_moves_a_training_backbone_by_what_it_wrote_alone():
    game = make_game(adapter={"trainable": "all"}, backbone=frozen_copy(adapted(llama())))
    game(**toy_batch(game.model)).rows["adv"].sum().backward()
    assert all(p.grad is None for p in game.features.own.parameters())
    assert game.model.get_input_embeddings().weight.grad is not None  # through what it wrote
    assert not any("features" in name for name, _ in game.named_parameters())


def test_a_frozen_copy_is_plain_and_its_own():
    model = randomised(adapted(llama()))
    twin = frozen_copy(model)
    tokens = torch.tensor([[5, 6, 7]])
    assert type(twin) is type(model.get_base_model())
    assert not any(p.requires_grad for p in twin.parameters())
    assert not any("style_adapter_" in name for name, _ in twin.named_parameters())
    assert torch.equal(twin(input_ids=tokens).logits, llama().eval()(input_ids=tokens).logits)
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
    assert torch.equal(twin(input_ids=tokens).logits, llama().eval()(input_ids=tokens).logits)
