"""The JSON Schema of ``result.json``, as it is shipped."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest

from privhier.evaluation.schema import FILE, json_schema, schema_text


@pytest.fixture
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def data(result):
    return json.loads(result.model_dump_json(by_alias=True))


def test_what_is_shipped_follows_the_model(repository):
    shipped = (repository / "privhier" / "evaluation" / FILE).read_text()
    assert shipped == schema_text(), f"python -m privhier.evaluation.schema > privhier/evaluation/{FILE}"


def test_it_is_in_the_wheel(repository):
    packages = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert FILE in packages["package-data"]["privhier.evaluation"]


def test_a_result_validates(validator, data):
    validator.validate(data)


def test_its_version_is_in_its_name(validator):
    assert validator.schema["$id"] == "urn:privhier.result:1"
    assert validator.schema["properties"]["schema"]["const"] == "privhier.result/1"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.update(schema="privhier.result/2"),
        lambda data: data.update(surprise=1),
        lambda data: data.pop("guarantees"),
        lambda data: data["utility_mean"]["auc"].update(value="high"),
        lambda data: data["utility_mean"]["auc"].update(n=-1),
    ],
    ids=["version", "unknown", "missing", "type", "bound"],
)
def test_what_is_no_result_does_not(validator, data, spoil):
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(data)
