"""The configuration: every option has its help, every bad value its error, and it travels whole."""

import dataclasses
import json

import pytest
from peft import PeftConfig

from style_adapter import StyleAdapterConfig

OURS = [
    f
    for f in dataclasses.fields(StyleAdapterConfig)
    if f.name not in {*PeftConfig.__dataclass_fields__, "format_version"}  # filled in, never set
]


def test_every_option_of_ours_has_one_line_of_help():
    assert {"r", "alpha", "dropout", "styles", "noise_dim", "prompt"} <= {f.name for f in OURS}
    for option in OURS:
        text = option.metadata.get("help", "")
        assert text.endswith("."), f"{option.name} needs a help line that is a sentence"
        assert "\n" not in text


def test_alone_it_has_one_style_and_is_named_in_peft():
    config = StyleAdapterConfig()
    assert config.styles == ["default"]
    assert config.default_style == "default"
    assert config.peft_type.value == "STYLE_ADAPTER"


def test_default_style_is_the_first_unless_named():
    assert StyleAdapterConfig(styles=["a", "b"]).default_style == "a"
    assert StyleAdapterConfig(styles=["a", "b"], default_style="b").default_style == "b"


def test_configs_do_not_share_their_lists():
    StyleAdapterConfig().styles.append("x")
    assert StyleAdapterConfig().styles == ["default"]


@pytest.mark.parametrize("option", ["target_modules", "exclude_modules"])
def test_module_names_are_kept_as_peft_keeps_them(option):
    assert getattr(StyleAdapterConfig(**{option: ["a", "b", "a"]}), option) == {"a", "b"}
    assert getattr(StyleAdapterConfig(**{option: ".*a"}), option) == ".*a"


FULL = {
    "r": 3,
    "alpha": 5.0,
    "dropout": 0.25,
    "styles": ["modern", "kjv"],
    "default_style": "kjv",
    "style_dim": 7,
    "noise_dim": 2,
    "noise_type": "uniform",
    "target_modules": {"q_proj", "v_proj"},
    "target_parameters": ["experts.down_proj"],
    "exclude_modules": {"lm_head"},
    "layers_to_transform": [0, 1],
    "layers_pattern": "layers",
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"q_proj": 1.0},
    "bias": "style_adapter_only",
    "modules_to_save": ["lm_head"],
    "init_weights": "orthogonal",
    "trainable": "top:2",
    "use_rslora": True,
    "prompt": "To {style}: {source}\n",
}


def test_it_travels_whole_through_a_folder(tmp_path):
    assert set(FULL) == {option.name for option in OURS}, "name each option here"
    defaults = StyleAdapterConfig()
    assert all(getattr(defaults, name) != value for name, value in FULL.items()), "give each another value than default"
    config = StyleAdapterConfig(**FULL)
    config.save_pretrained(tmp_path)
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert type(loaded) is StyleAdapterConfig
    assert {name: getattr(loaded, name) for name in FULL} == {**FULL, "target_modules": loaded.target_modules}
    assert set(loaded.target_modules) == FULL["target_modules"]


def test_an_older_file_without_a_newer_option_gets_its_default(tmp_path):
    StyleAdapterConfig(**FULL).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    saved = json.loads(path.read_text())
    del saved["prompt"]
    path.write_text(json.dumps(saved))
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert loaded.prompt == StyleAdapterConfig().prompt
    assert loaded.styles == FULL["styles"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"r": 0}, r"r=0 must be >= 1; set r in StyleAdapterConfig"),
        ({"r": -2}, r"r=-2 must be >= 1; set r in StyleAdapterConfig"),
        ({"style_dim": -1}, r"style_dim=-1 must be >= 0; set style_dim in StyleAdapterConfig"),
        ({"noise_dim": -1}, r"noise_dim=-1 must be >= 0; set noise_dim in StyleAdapterConfig"),
        ({"rank_pattern": {"q": 0}}, r"rank_pattern\['q'\]=0 must be >= 1; correct it in StyleAdapterConfig"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\); set dropout in StyleAdapterConfig"),
        ({"dropout": -0.1}, r"dropout=-0.1 must be in \[0, 1\); set dropout in StyleAdapterConfig"),
        ({"noise_type": "pink"}, r"noise_type='pink' must be one of gaussian, uniform, none; set noise_type in Style"),
        ({"styles": []}, r"styles=\[\] must be a list of at least one name, such as \['formal', 'casual'\]"),
        ({"styles": [""]}, r"styles: '' must be a non-empty string; name each style"),
        ({"styles": ["  "]}, r"styles: '  ' must be a non-empty string; name each style"),
        ({"styles": ["a", "b", "a"]}, r"styles=\['a', 'b', 'a'\] must be unique; remove the repeated names"),
        ({"styles": ["a/b"]}, r"styles: 'a/b' must not contain a path separator; exports are folders named by style"),
        ({"styles": ["a\\b"]}, r"must not contain a path separator"),
        ({"styles": [".."]}, r"must not contain a path separator"),
        ({"styles": ["a"], "default_style": "b"}, r"default_style='b' must be one of styles=\['a'\]; choose one or"),
        ({"bias": "lora_only"}, r"bias='lora_only' must be one of none, all, style_adapter_only; set bias in Style"),
        (
            {"target_modules": "all-linear", "layers_to_transform": 0},
            r"layers_to_transform=0 must not be set where target_modules is .* 'all-linear'; give target_modules as a",
        ),
        ({"layers_pattern": "h"}, r"layers_pattern='h' must come with layers_to_transform; set the block indices too"),
        ({"prompt": "Translate: "}, r"prompt='Translate: ' must contain {source}; add it where the text belongs"),
    ],
    ids=str,
)
def test_bad_option_raises_with_its_bound_and_remedy(options, text):
    with pytest.raises(ValueError, match=text):
        StyleAdapterConfig(**options)


@pytest.mark.parametrize(
    ("styles", "text"),
    [
        ("kjv", r"styles='kjv' must be a list of at least one name, such as \['formal', 'casual'\]"),
        ([1], r"styles: 1 must be a non-empty string; name each style"),
    ],
    ids=str,
)
def test_styles_of_a_wrong_type_raise_with_the_remedy(styles, text):
    with pytest.raises((ValueError, TypeError), match=f"{text}|Type-check error"):  # the latter with types checked
        StyleAdapterConfig(styles=styles)
