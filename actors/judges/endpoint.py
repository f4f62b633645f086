"""A server with the OpenAI chat API judges; what it cannot score is null with the reason.

One token is asked for and its whole distribution is read. A query has no score only if the server
answers another one meanwhile: while it is away, ``JudgeUnavailable`` is raised, so that a passing
outage is tried again and never stored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Any

from actors.judges.http import REFUSED_STATUS, Answer, post_json
from actors.judges.limits import Pace, backoff_s
from actors.judges.prompts import prompts_version, write_messages
from actors.judges.query import JudgeQuery, JudgeScore, JudgeTotals
from actors.judges.scale import weigh
from actors.judges.spec import JudgeSpec
from conf.errors import UserError

NUM_TOKENS = 2
"""One more than needed: a second digit shows that the tokenizer splits numbers."""
NUM_LOGPROBS = 20


class JudgeUnavailable(OSError):  # noqa: N818 - the name says what happened
    """Queries of a batch could not be scored because the server was away; try again later.

    Example: the server restarts for a minute. ``scores`` are those of the whole batch, in order;
    the final ones need not be asked for again.
    """

    def __init__(self, message: str, scores: Sequence[JudgeScore] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.scores = tuple(scores)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[JudgeScore, ...]]]:
        """Keep type and fields between processes."""
        return type(self), (self.message, self.scores)


class EndpointJudge:
    """Scores by asking a chat server, several texts at once."""

    def __init__(self, spec: JudgeSpec) -> None:
        if not spec.url or not spec.url.startswith(("http://", "https://")):
            raise UserError(
                f"judge.url={spec.url!r} is not an http(s) address; "
                "give the server's base address, such as https://api.openai.com/v1"
            )
        if not spec.model:
            raise UserError("judge.model is missing; name the model that judge.url serves")
        self._spec = spec
        self._url = spec.url.rstrip("/") + "/chat/completions"
        self._pace = Pace(spec.requests_per_minute)
        self._lock = Lock()
        self.totals = JudgeTotals()

    @property
    def name(self) -> str:
        """As configured."""
        return self._spec.name

    @property
    def version(self) -> str:
        """Model, prompts and cut: a score depends on nothing else of ours."""
        spec = self._spec
        return f"{spec.model}-{prompts_version(spec.scale)}-{spec.max_answer_chars}"

    def score(self, queries: Sequence[JudgeQuery]) -> list[JudgeScore]:
        """Scores in the order of the queries.

        Raises:
            JudgeUnavailable: The server was away for some or all of them.
            UserError: The server refuses the address or the key.
        """
        with ThreadPoolExecutor(self._spec.max_concurrency, "judge") as pool:
            scores = list(pool.map(self._score, queries))
            missing = [i for i, one in enumerate(scores) if not one.is_final]
            answered = next((i for i, one in enumerate(scores) if one.is_final), None)
            if missing and answered is not None and self._score(queries[answered]).is_final:
                again = pool.map(self._score, [queries[i] for i in missing])
                for i, score in zip(missing, again, strict=True):
                    scores[i] = score
                missing = [i for i in missing if not scores[i].is_final]
        self.totals.count(scores)
        # Whoever has no score now, while the server answers another query, will have none later.
        if missing and (answered is None or not self._score(queries[answered]).is_final):
            raise JudgeUnavailable(
                f"judge {self.name} left {len(missing)} of {len(scores)} without a score: "
                f"{scores[missing[0]].reason}",
                scores,
            )
        return scores

    def _score(self, query: JudgeQuery) -> JudgeScore:
        """One score."""
        began = time.monotonic()
        answer = self._ask(query)
        if answer.body is None:
            score = JudgeScore(
                id=query.id, score=None, reason=answer.reason, is_final=not answer.may_retry
            )
        else:
            score = self._read(query, answer.body)
        return replace(score, latency_s=time.monotonic() - began)

    def _ask(self, query: JudgeQuery) -> Answer:
        """Ask until there is an answer that will not change."""
        spec = self._spec
        messages = write_messages(query.cut(spec.max_answer_chars), scale=spec.scale)
        payload = {
            "model": spec.model,
            "messages": [
                {"role": "system", "content": messages.system},
                {"role": "user", "content": messages.user},
            ],
            "max_tokens": NUM_TOKENS,
            "temperature": 0,
            "seed": 42,
            "logprobs": True,
            "top_logprobs": NUM_LOGPROBS,
        }
        attempt = 0
        while True:
            attempt += 1
            self._pace.wait()
            key = os.environ.get(spec.api_key_env, "")
            answer = post_json(self._url, payload, key=key, timeout_s=spec.timeout_s)
            with self._lock:
                self.totals.num_calls += 1
                self.totals.num_retries += attempt > 1
            if answer.status in REFUSED_STATUS:
                raise UserError(
                    f"judge.url={spec.url} answered {answer.reason}; "
                    f"check judge.url, judge.model and the key in ${spec.api_key_env}"
                )
            if not answer.may_retry or attempt >= spec.max_attempts:
                return answer
            self._pace.hold(answer.retry_after_s)
            time.sleep(backoff_s(attempt) * spec.backoff_scale)

    def _read(self, query: JudgeQuery, body: Any) -> JudgeScore:  # noqa: ANN401 - foreign JSON
        """Turn the server's answer into a score."""
        cost_usd = self._cost(body)
        try:
            tokens, choices = _first_token(body)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = f"the answer has an unknown form ({type(error).__name__}: {error})"
            return JudgeScore(id=query.id, score=None, reason=reason, cost_usd=cost_usd)
        if not choices:
            reason = "the answer has no log-probabilities"
            return JudgeScore(id=query.id, score=None, reason=reason, cost_usd=cost_usd)
        if len(tokens) > 1 and tokens[0].strip().isdigit() and tokens[1].isdigit():
            reason = (
                f"the server splits numbers into digits ({tokens[0]!r}, {tokens[1]!r}); "
                "set judge.scale=digit"
            )
            return JudgeScore(id=query.id, score=None, reason=reason, cost_usd=cost_usd)
        weighted = weigh(choices, kind=query.kind, scale=self._spec.scale)
        return JudgeScore(
            id=query.id, score=weighted.score, reason=weighted.reason, cost_usd=cost_usd
        )

    def _cost(self, body: Any) -> float:  # noqa: ANN401 - foreign JSON
        """Price of one call, by the server's own token counts; 0 where it gives none."""
        usage = body.get("usage") if isinstance(body, dict) else None
        if not isinstance(usage, dict):
            return 0.0
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        prices = self._spec
        return (
            (prompt if isinstance(prompt, int) else 0) * prices.usd_per_million_prompt_tokens
            + (completion if isinstance(completion, int) else 0)
            * prices.usd_per_million_completion_tokens
        ) / 1e6


def _first_token(body: Any) -> tuple[list[str], list[tuple[str, float]]]:  # noqa: ANN401 - foreign JSON
    """The answer's tokens, and the candidates for the first one with log-probabilities."""
    content = (body["choices"][0].get("logprobs") or {}).get("content") or []
    tokens = [str(one["token"]) for one in content]
    first = content[0]["top_logprobs"] if content else []
    return tokens, [(str(one["token"]), float(one["logprob"])) for one in first]
