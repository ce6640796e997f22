# SPDX-License-Identifier: Apache-2.0
"""Where the plan takes a model's facts from, and what it says when it finds none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.metal.plugins.module_utils._errors import InvalidInputError
from ansible_collections.gpufleet.metal.plugins.module_utils._plan import builder
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.builder import build_plan
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.config_keys import plan_keys
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.facts import known_model_of, source_identity
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.facts_record import document, merged
from ansible_collections.gpufleet.metal.plugins.module_utils._plan.known_models import KNOWN_MODELS
from ansible_collections.gpufleet.metal.tests.unit.plugins.module_utils._plan.fleets import (
    TINY_CONFIG,
    gpus,
    hosts,
    inventory,
    model,
    texts,
    tiny,
    variables,
)

COMMIT = "0" * 40
SHA = "a" * 64
HUB = {"huggingface": {"repository": "zai-org/AutoGLM-Phone-9B", "revision": COMMIT}}
DESCRIBE = "run ansible-playbook gpufleet.metal.describe_models and commit group_vars/all/fleet_model_facts.yml"


def bare(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an entry that says nothing of the model's facts."""
    return model("m", **{"config": None, "weights_bytes": None, "source": source, "context_length": 1024, **changes})


def record(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return fleet_model_facts of the model m: the sandbox's tiny model."""
    return {"m": {"source": source, "config": TINY_CONFIG, "weights_bytes": 461568, "weights_from": "index", **changes}}


def planned(entry: dict[str, Any], recorded: Any = None) -> dict[str, Any]:
    """Return the plan of one model on one node with eight H100."""
    return build_plan(inventory(variables(entry, fleet_model_facts=recorded), hosts(gpus(8))))


@pytest.mark.parametrize(
    ("entry", "recorded", "origin", "layers", "weights_bytes"),
    [
        pytest.param(tiny("m"), None, "given", 2, 461568, id="the entry"),
        pytest.param(
            tiny("m"), record({"path": "/elsewhere"}), "given", 2, 461568, id="the entry before a stale record"
        ),
        pytest.param(bare({"path": "/m"}), record({"path": "/m"}), "recorded", 2, 461568, id="the record of a path"),
        pytest.param(
            bare({"archive": {"url": "https://new.example.org/m.tar", "sha256": SHA}}),
            record({"archive": {"sha256": SHA}}),
            "recorded",
            2,
            461568,
            id="an archive is its digest, wherever it lies",
        ),
        pytest.param(bare(HUB), record(HUB), "recorded", 2, 461568, id="the record before the table"),
        pytest.param(bare(HUB), {"other": {}}, "bundled", 40, 20585554944, id="the table by repository"),
        pytest.param(
            bare({"huggingface": {"repository": "ZAI-org/autoglm-phone-9b", "revision": COMMIT}}),
            None,
            "bundled",
            40,
            20585554944,
            id="in whatever case",
        ),
        pytest.param(
            bare({"path": "/m"}, known_model="autoglm-phone-9b"), None, "bundled", 40, 20585554944, id="known_model"
        ),
        pytest.param(
            bare(HUB, weights_bytes=10**10),
            None,
            "bundled",
            40,
            10**10,
            id="a size of one's own with the table's shape",
        ),
        pytest.param(
            bare({"path": "/m"}, config=TINY_CONFIG, known_model="autoglm-phone-9b"),
            None,
            "bundled",
            2,
            20585554944,
            id="a shape of one's own with the table's size",
        ),
    ],
)
def test_order(
    entry: dict[str, Any], recorded: Any, origin: str, layers: int, weights_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry wins over the record, the record over the table; the plan says which it was."""
    seen = []
    real = builder.decide

    def spy(wanted: Any, *others: Any) -> Any:
        seen.append(wanted)
        return real(wanted, *others)

    monkeypatch.setattr(builder, "decide", spy)
    result = planned(entry, recorded)
    assert texts(result) == []
    assert result["models"]["m"]["facts"] == origin
    (found,) = seen
    assert found.config.get("text_config", found.config)["num_hidden_layers"] == layers
    assert found.weights_bytes == weights_bytes


@pytest.mark.parametrize(
    ("entry", "recorded", "expected"),
    [
        pytest.param(
            bare({"path": "/m"}),
            None,
            (
                "model_facts_missing",
                "fleet_models[m].config and fleet_models[m].weights_bytes are not set, nothing is recorded in "
                "fleet_model_facts, and fleet_models[m].known_model is not set",
                "the model's config.json and the bytes of its weights",
                f"{DESCRIBE}; or set known_model; or set config and weights_bytes",
            ),
            id="nothing",
        ),
        pytest.param(
            bare({"huggingface": {"repository": "org/new", "revision": COMMIT}}, weights_bytes=1),
            {},
            (
                "model_facts_missing",
                "fleet_models[m].config is not set, nothing is recorded in fleet_model_facts, and the bundled table "
                "does not know org/new",
                "the model's config.json and the bytes of its weights",
                f"{DESCRIBE}; or set known_model; or set config and weights_bytes",
            ),
            id="an unknown repository",
        ),
        pytest.param(
            bare({"path": "/new"}),
            record({"path": "/old"}),
            (
                "model_facts_stale",
                "fleet_model_facts[m] was read from /old",
                "facts of /new",
                DESCRIBE,
            ),
            id="another path",
        ),
        pytest.param(
            bare(HUB),
            record({"huggingface": {"repository": "zai-org/AutoGLM-Phone-9B", "revision": "1" * 40}}),
            (
                "model_facts_stale",
                f"fleet_model_facts[m] was read from zai-org/AutoGLM-Phone-9B at {'1' * 40}",
                f"facts of zai-org/AutoGLM-Phone-9B at {COMMIT}",
                DESCRIBE,
            ),
            id="another commit, although the table knows the repository",
        ),
        pytest.param(
            bare({"archive": {"url": "file:///m.tar", "sha256": SHA}}),
            record({"archive": {"sha256": "b" * 64}}),
            (
                "model_facts_stale",
                f"fleet_model_facts[m] was read from the archive with sha256 {'b' * 64}",
                f"facts of the archive with sha256 {SHA}",
                DESCRIBE,
            ),
            id="another archive",
        ),
        pytest.param(
            bare({"path": "/m"}, known_model="autoglm-phone-8b"),
            None,
            (
                "invalid_value",
                'fleet_models[m].known_model is "autoglm-phone-8b"',
                "the name of a bundled model (did you mean autoglm-phone-9b?); docs/models.md lists them",
                "correct fleet_models[m].known_model, or remove it and run ansible-playbook "
                "gpufleet.metal.describe_models",
            ),
            id="an unknown name",
        ),
        pytest.param(
            tiny("m", known_model="llama"),
            None,
            (
                "invalid_value",
                'fleet_models[m].known_model is "llama"',
                "the name of a bundled model; docs/models.md lists them",
                "correct fleet_models[m].known_model, or remove it and run ansible-playbook "
                "gpufleet.metal.describe_models",
            ),
            id="an unknown name beside facts of its own",
        ),
        pytest.param(
            bare({"path": "/m"}),
            ["m"],
            (
                "wrong_type",
                "fleet_model_facts is a list of 1",
                "a mapping of models' names to their recorded facts",
                "remove fleet_model_facts and run ansible-playbook gpufleet.metal.describe_models",
            ),
            id="a record that is none",
        ),
        pytest.param(
            bare({"path": "/m"}),
            {"m": "big"},
            (
                "wrong_type",
                'fleet_model_facts[m] is "big"',
                "a mapping",
                "write fleet_model_facts[m] as a mapping of options",
            ),
            id="a record of one model that is none",
        ),
        pytest.param(
            bare({"path": "/m"}),
            record({"path": "/m"}, weights_bytes="many"),
            (
                "wrong_type",
                'fleet_model_facts[m].weights_bytes is "many"',
                "a whole number, 1 or more",
                "correct fleet_model_facts[m].weights_bytes",
            ),
            id="a size that is none",
        ),
    ],
)
def test_findings(entry: dict[str, Any], recorded: Any, expected: tuple[str, ...]) -> None:
    """Each has one finding, and no other follows from it."""
    assert texts(planned(entry, recorded)) == [("model", "m", *expected)]


def test_a_wrong_source_is_reported_alone() -> None:
    """Facts are not looked for where a source cannot be read."""
    assert [text[2] for text in texts(planned(bare({"path": "relative"})))] == ["invalid_value"]


def test_the_table_is_not_handed_out() -> None:
    """What a plan does with a configuration stays its own."""
    before = yaml.safe_dump(KNOWN_MODELS)
    planned(bare(HUB))
    assert yaml.safe_dump(KNOWN_MODELS) == before


@pytest.mark.parametrize("name", sorted(KNOWN_MODELS))
def test_every_known_model_can_be_planned(name: str) -> None:
    """On a node that is large enough, by name alone."""
    entry = bare({"path": "/m"}, known_model=name, arguments={}, context_length=4096, concurrency=1)
    result = build_plan(inventory(variables(entry), hosts(gpus(8, "H200 SXM"))))
    assert texts(result) == []
    assert result["models"]["m"]["facts"] == "bundled"


def test_repositories_are_found_whatever_their_case() -> None:
    """As the hub does it."""
    assert known_model_of("QWEN/qwen3-8b") == "qwen3-8b"
    assert known_model_of("Qwen/Qwen3-8B-GGUF") is None


@pytest.mark.parametrize(
    ("source", "identity"),
    [
        ({"path": "/m"}, {"path": "/m"}),
        ({"archive": {"url": "https://user:secret@example.org/m", "sha256": "AB"}}, {"archive": {"sha256": "ab"}}),
        (HUB, HUB),
    ],
)
def test_source_identity(source: dict[str, Any], identity: dict[str, Any]) -> None:
    """No URL gets into a record, and no password with it."""
    assert source_identity(source) == identity


NONSENSE = [None, 7, -1, "text", "{{ x }}", [], {}, [None], {"m": None}, {"m": {}}, {"m": []}, {"path": 5}, True, 1.5]


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
def test_nonsense_is_reported_and_never_raises(value: Any) -> None:
    """Whatever stands in the record or in an entry, the plan answers with findings."""
    planned(bare({"path": "/m"}), value)
    for key in ("source", "config", "weights_bytes", "weights_from", "other"):
        planned(bare({"path": "/m"}), {"m": {**record({"path": "/m"})["m"], key: value}})
        planned(bare(HUB), {"m": {**record(HUB)["m"], key: value}})
    for key in ("known_model", "config", "weights_bytes", "source"):
        planned({**bare({"path": "/m"}), key: value})
    for name in ("autoglm-phone-9b", "deepseek-v3", "gemma-3-27b-it", "gpt-oss-20b"):
        config = KNOWN_MODELS[name]["config"]
        for key in config:
            planned(bare({"path": "/m"}, config={**config, key: value}, weights_bytes=1))
        for below in ("text_config", "vision_config"):
            for key in config.get(below, {}):
                changed = {**config, below: {**config[below], key: value}}
                planned(bare({"path": "/m"}, config=changed, weights_bytes=1))


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text of a value, keys as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_in(key)
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["{{x}}", "{%", "ok"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["architectures", "dtype", "layer_types", "quantization_config", "rope_parameters", "text_config", "vocab_size"]
)


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS | st.sampled_from(["config_groups", "factor"]), JSON)))
def test_no_config_gets_a_template_into_the_record(config: dict[str, Any]) -> None:
    """What passes is numbers and words, and the file that holds it reads back as the same."""
    try:
        text = document({"m-10": {**FACTS, "config": config}}, ENTRIES, None)
    except InvalidInputError:
        return
    kept = yaml.safe_load(text)["fleet_model_facts"]["m-10"]["config"]
    assert kept == plan_keys(config)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", found) for found in texts_in(kept))


# ----------------------------------------------------------------------------------------------------------- the record


def test_plan_keys() -> None:
    """Only what the plan reads is kept, sorted; regular layers become their pattern."""
    types = (["sliding_attention"] * 5 + ["full_attention"]) * 2 + ["sliding_attention"]
    found = plan_keys(
        {
            "vocab_size": 10,
            "chat_template": "{{ evil }}",
            "head_dim": None,
            "torch_dtype": "bfloat16",
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "ignore": ["lm_head"],
                "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"group_size": 64, "observer": "{{"}}},
            },
            "text_config": {"layer_types": types, "num_hidden_layers": 13, "rope_scaling": {"factor": 8.0, "beta": 1}},
            "rope_parameters": {"rope_type": "default", "full_attention": {"factor": 2.0, "rope_theta": 1}},
            "vision_config": {},
        }
    )
    assert found == {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"group_size": 64}}},
        },
        "rope_parameters": {"rope_type": "default", "full_attention": {"factor": 2.0}},
        "text_config": {"num_hidden_layers": 13, "rope_scaling": {"factor": 8.0}, "sliding_window_pattern": 6},
        "torch_dtype": "bfloat16",
        "vocab_size": 10,
    }
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("types", "kept"),
    [
        (["full_attention"] * 3, {}),
        (["sliding_attention", "full_attention"] * 2, {"sliding_window_pattern": 2}),
        (["full_attention", "sliding_attention"], {"layer_types": ["full_attention", "sliding_attention"]}),
        (["sliding_attention"] * 2, {"layer_types": ["sliding_attention"] * 2}),
    ],
)
def test_layer_types(types: list[str], kept: dict[str, Any]) -> None:
    """Layers that do not follow a pattern are kept as they are."""
    assert plan_keys({"layer_types": types}) == kept


def test_a_window_that_no_layer_has() -> None:
    """It is not taken for that of all layers."""
    assert plan_keys({"sliding_window": 128, "layer_types": ["full_attention"] * 3}) == {
        "sliding_window": 128,
        "sliding_window_pattern": 1,
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"torch_dtype": "{{ lookup('pipe', 'id') }}"}, "config.torch_dtype is \"{{ lookup('pipe', 'id') }}\""),
        ({"model_type": "a b"}, 'config.model_type is "a b"'),
        ({"architectures": ["X", "!unsafe"]}, 'config.architectures is "!unsafe"'),
        ({"vocab_size": float("nan")}, "config.vocab_size is nan"),
        ({"vocab_size": {"a": 1}}, "config.vocab_size is a mapping with 1 keys"),
        ({"layer_types": ["x"] * 2000}, "config.layer_types is a list of 2000"),
        ({"text_config": {"dtype": "#"}}, 'config.text_config.dtype is "#"'),
        ({"rope_parameters": {"{{ x }}": {"factor": 1}}}, 'config.rope_parameters is "{{ x }}"'),
    ],
)
def test_a_text_that_could_be_a_template_is_refused(config: dict[str, Any], message: str) -> None:
    """A config.json comes from strangers, and what stands in an inventory is a template."""
    with pytest.raises(InvalidInputError) as raised:
        plan_keys(config)
    assert str(raised.value) == (
        f"{message}, wanted a number, true, false, a word of up to 64 letters, digits, '_', '.', '+' and '-', or a "
        "list of up to 1024 of these"
    )


ENTRIES = [
    {"name": "m-10", "source": {"path": "/m-10"}},
    {"name": "m-2", "source": {"archive": {"url": "https://user:secret@example.org/m.tar", "sha256": SHA}}},
]
FACTS = {"config": {"vocab_size": 10, "junk": "{{ x }}"}, "weights_bytes": 20, "weights_from": "headers"}


def test_document() -> None:
    """Sorted, commented, and what Ansible reads from it is what the plan wants."""
    old = {"old": {"source": {"path": "/old"}, "config": {}, "weights_bytes": 1}, "m-2": {"weights_bytes": 5}}
    text = document({"m-10": FACTS, "m-2": FACTS}, ENTRIES, old)
    assert text.splitlines()[-21:] == [
        "fleet_model_facts:",
        '  "m-2":',
        "    source:",
        "      archive:",
        f'        sha256: "{SHA}"',
        "    weights_bytes: 20",
        '    weights_from: "headers"',
        "    config:",
        "      vocab_size: 10",
        '  "m-10":',
        "    source:",
        '      path: "/m-10"',
        "    weights_bytes: 20",
        '    weights_from: "headers"',
        "    config:",
        "      vocab_size: 10",
        '  "old":',
        "    source:",
        '      path: "/old"',
        "    weights_bytes: 1",
        "    config: {}",
    ]
    assert yaml.safe_load(text)["fleet_model_facts"] == merged({"m-10": FACTS, "m-2": FACTS}, ENTRIES, old)
    assert document({}, [], yaml.safe_load(text)["fleet_model_facts"]) == text, "a second run changes nothing"


def test_an_empty_document() -> None:
    """Nothing described and nothing recorded is a file that Ansible reads."""
    assert yaml.safe_load(document({}, [], None)) == {"fleet_model_facts": {}}


@pytest.mark.parametrize(
    ("described", "recorded", "message"),
    [
        (
            {"m-10": {**FACTS, "config": {"dtype": "{{"}}},
            None,
            "model 'm-10': config.json.dtype is \"{{\", wanted a number, true, false, a word of up to 64 letters, "
            "digits, '_', '.', '+' and '-', or a list of up to 1024 of these",
        ),
        ({"m-10": {**FACTS, "weights_bytes": 0}}, None, "model 'm-10': weights_bytes is 0, wanted 1 or more"),
        (
            {},
            ["m"],
            "fleet_model_facts is a list of 1, wanted a mapping of models to mappings: remove the file that holds it "
            "and describe the models again",
        ),
        (
            {},
            {"m": {"source": {"path": "/{{ x }}"}}},
            "the facts of a model hold '{{', wanted nothing that Ansible takes for a template",
        ),
    ],
)
def test_documents_that_are_refused(described: Any, recorded: Any, message: str) -> None:
    """Nothing is written that an inventory should not hold."""
    with pytest.raises(InvalidInputError) as raised:
        document(described, ENTRIES, recorded)
    assert str(raised.value) == message
