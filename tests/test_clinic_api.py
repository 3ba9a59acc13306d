"""The JSON API: the way of a case through it, its description, and what chance asks of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from clinics import Clinic, clinic, picture
from dermalert.clinic.routes.api import description
from dermalert.clinic.schema import Case, Finding, Role, Status, now
from dermalert.clinic.throttle import Throttle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with clinic(tmp_path_factory.mktemp("clinic")) as running:
        object.__setattr__(running.service, "exports", Throttle(10_000, per=1))
        yield running


def _case(ours: Clinic, seed: int, status: Status = Status.SCORED) -> str:
    """A case that was scored, or stands elsewhere."""
    sent = ours.as_(Role.UPLOADER).post("/api/v1/pictures", files={"files": ("a.jpg", picture(seed), "image/jpeg")})
    case_id: str = sent.json()["results"][0]["id"]
    with ours.service.store.session() as session:
        case = session.get_one(Case, case_id)
        case.status, case.score, case.next_try_at = status, 0.4, None
        case.finding = Finding(
            bundle="test",
            bundle_digest="0" * 64,
            probabilities={"melanoma": 0.4, "nevus": 0.6},
            melanoma=0.4,
            malignant=0.4,
            alert="refer",
            diagnosis="nevus",
            possible=["nevus", "melanoma"],
            ood=0.1,
            quality=1.0,
            message="",
            scored_at=now(),
        )
    return case_id


def test_a_case_goes_its_way_by_the_api(ours: Clinic) -> None:
    reader, case_id = ours.as_(Role.READER), _case(ours, 1)
    listed = reader.get("/api/v1/cases", params={"order": "newest"}).json()
    assert listed["cases"][0]["finding"]["alert"] == "refer"
    where = f"/api/v1/cases/{case_id}"
    assert reader.post(f"{where}/notes", json={"text": "grown"}).json()["notes"][0]["who"] == "reader"
    assert reader.post(f"{where}/close").status_code == 409
    assert reader.post(f"{where}/decisions", json={"action": "follow_up"}).status_code == 422
    decided = reader.post(f"{where}/decisions", json={"action": "follow_up", "months": 3})
    assert (decided.status_code, decided.json()["status"]) == (201, "reviewed")
    assert reader.post(f"{where}/histology", json={"diagnosis": "a mole"}).status_code == 422
    closed = reader.post(f"{where}/histology", json={"diagnosis": "mel"})
    assert (closed.status_code, closed.json()["status"]) == (201, "closed")
    assert closed.json()["histologies"][0]["diagnosis"] == "melanoma"
    assert reader.post(f"{where}/requeue").status_code == 409
    failed = _case(ours, 2, Status.FAILED)
    assert reader.post(f"/api/v1/cases/{failed}/requeue").json()["status"] == "received"


def test_a_problem_says_what_to_do_and_has_the_requests_id(ours: Clinic) -> None:
    answer = ours.as_(Role.READER).get("/api/v1/cases/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["request"] == answer.headers["x-request-id"]
    assert problem["detail"] == "There is no such case. Go back to the worklist."


def test_every_operation_is_described(ours: Clinic) -> None:
    for path, operations in description(ours.app)["paths"].items():
        for method, operation in operations.items():
            name = f"{method} {path}"
            assert operation.get("summary"), name
            assert operation.get("description"), name
            answers = operation["responses"]
            assert any(status.startswith("2") for status in answers), name
            if path not in ("/healthz", "/readyz"):
                assert operation.get("security"), name
                assert {"401", "403"} <= set(answers), name


def _operations(schema: Any) -> list[Any]:
    """All but those that typeset, which takes seconds; they have their own tests."""
    return [each.ok() for each in schema.get_all_operations() if not each.ok().path.endswith(".pdf")]


def _requests(operation: Any) -> st.SearchStrategy[Any]:
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    return st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])


def test_whatever_is_asked_of_the_api_it_answers_as_described_and_never_fails(ours: Clinic) -> None:
    schema = schemathesis.openapi.from_dict(description(ours.app))
    schema.app = ours.app
    known, answered = _case(ours, 3), defaultdict(set)
    token = {"Authorization": f"Bearer {ours.token(Role.ADMIN)}"}
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]

    def ask(case: Any, of_a_case: bool) -> None:
        if of_a_case and "id" in (case.path_parameters or {}):
            case.path_parameters["id"] = known
        response = case.call(headers=token)
        case.validate_response(response, checks=checks)
        answered[case.operation.label].add(response.status_code)

    chance = settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for operation in _operations(schema):
        chance(given(_requests(operation), st.sampled_from([True, True, True, False]))(ask))()
    for label in ("GET /api/v1/cases", "POST /api/v1/cases/{id}/notes", "POST /api/v1/pictures"):
        assert any(status < 300 for status in answered[label]), label
