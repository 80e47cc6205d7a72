"""The registration: PEFT and transformers know the method as one of theirs."""

import copy
import pickle

import peft
import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraModel

from style_adapter import StyleAdapterConfig, StyleAdapterModel, _peft


def test_peft_knows_the_method_by_type_name_and_prefix():
    member = PeftType("STYLE_ADAPTER")
    assert member is PeftType["STYLE_ADAPTER"] is PeftType.STYLE_ADAPTER is StyleAdapterConfig().peft_type
    assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is StyleAdapterConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is StyleAdapterModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == "style_adapter_" == StyleAdapterModel.prefix


def test_defaults_are_those_of_lora_for_every_architecture():
    assert StyleAdapterModel.target_module_mapping == LoraModel.target_module_mapping
    assert {"llama", "gpt2", "t5", "deberta-v2"} < set(StyleAdapterModel.target_module_mapping)


def test_the_new_type_behaves_like_pefts_own():
    ours, theirs = PeftType.STYLE_ADAPTER, PeftType.LORA
    assert type(ours) is type(theirs)
    assert (ours.name, ours.value, str.__str__(ours)) == ("STYLE_ADAPTER", "STYLE_ADAPTER", "STYLE_ADAPTER")
    assert repr(ours) == repr(theirs).replace("LORA", "STYLE_ADAPTER")
    assert ours in set(PeftType)
    assert ours != theirs
    assert hash(ours) == hash("STYLE_ADAPTER")
    assert copy.deepcopy(ours) is ours
    assert pickle.loads(pickle.dumps(ours)) is ours
    assert len(list(PeftType)) == len({member.value for member in PeftType})


def test_registering_twice_changes_nothing():
    before = list(PeftType), dict(PEFT_TYPE_TO_TUNER_MAPPING)
    _peft.register(StyleAdapterConfig, StyleAdapterModel)
    assert _peft._add_peft_type("STYLE_ADAPTER") is PeftType.STYLE_ADAPTER
    assert (list(PeftType), dict(PEFT_TYPE_TO_TUNER_MAPPING)) == before


@pytest.mark.parametrize("version", ["0.20.9", "0.22.0", "1.0.0"])
def test_an_untested_peft_is_named_with_the_remedy(monkeypatch, version):
    _peft._warn_if_untested()  # the one installed here: a warning would be an error
    monkeypatch.setattr(peft, "__version__", version)
    with pytest.warns(
        UserWarning, match=rf"peft >= 0.21.2, < 0.22, and found {version}; .* pip install 'peft>=0.21.2,<"
    ):
        _peft._warn_if_untested()
