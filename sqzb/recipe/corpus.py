"""The keys of recipes for prepare-corpus: types, defaults, limits, and impossible combinations."""

from typing import Any, Literal

from pydantic import Field, field_validator

from sqzb.errors import Problem
from sqzb.hub import hub_id
from sqzb.recipe.languages import unknown_language
from sqzb.recipe.values import LocalPath, Section, changed_keys


class Source(Section):
    """The origin of documents, and how they are read."""

    path: LocalPath = Field(
        "",
        description="required: a local file, folder or glob; a Hub id (owner/name or "
        "owner/name@revision); python-docs",
    )
    licence: str | None = Field(None, description="licence of the text, for the manifest")
    text: str = Field(
        "text", description="column that holds the text, for parquet, jsonl and the Hub"
    )
    config: str | None = Field(None, description="configuration of a Hub data set")
    revision: str | None = Field(
        None,
        description="commit of a Hub data set; null: the newest at the first call, kept afterwards",
    )
    split: str = Field("train", description="split of a Hub data set")
    streaming: bool = Field(
        True, description="stream from the Hub; false: download first, to datasets' cache"
    )
    txt_documents: Literal["file", "blank-lines"] = Field(
        "file", description="a document in txt files: a whole file, or the text between blank lines"
    )
    sentences_per_document: int | None = Field(
        None,
        ge=2,
        description="for rows that are sentences: this many make a document; null: off",
    )
    wiki_leftovers: bool = Field(
        False, description="remove remains of wiki templates, tags and links"
    )
    weight: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="how often each document is used for training; 0.5: half of the documents",
    )

    def problems(self) -> list[Problem]:
        """Return a problem if there is no path, or two revisions."""
        if not self.path:
            return [("path", "missing: a local file, folder or glob, or a Hub id")]
        asked = hub_id(self.path)
        if asked is not None and asked.revision and self.revision:
            return [("revision", f"{self.path} has one already")]
        return []


class Vocabulary(Section):
    """A vocabulary to load or to train.

    path: a tokenizer.json, a vocab.txt, or a folder or Hub id with one of them.
    """

    path: LocalPath | None = Field(
        None,
        description="tokenizer.json, vocab.txt, or a folder or Hub id with one; null: train one",
    )
    size: int = Field(30522, ge=100, description="entries of a trained vocabulary")
    lowercase: bool = Field(True, description="lower-case all text")
    strip_accents: bool | None = Field(
        None,
        description="remove accents, and with them vowel signs and tone marks of many scripts; "
        "null: as lowercase",
    )
    sample_characters: int = Field(
        50_000_000,
        ge=1,
        description="amount of text, from all parts of all sources, to train it on",
    )

    def unread_keys(self) -> list[Problem]:
        """Return the keys that have no effect because a vocabulary is loaded."""
        reason = "has no effect beside vocabulary.path: a loaded vocabulary has its own"
        return [] if self.path is None else [(key, reason) for key in changed_keys(self, "path")]


class CorpusRecipe(Section):
    """sqzb prepare-corpus."""

    output: LocalPath = Field("data/corpus", min_length=1, description="the corpus folder to write")
    sources: dict[str, Source] = Field(
        {}, description="required: documents by a name of your choice; NAME=null removes a source"
    )
    vocabulary: Vocabulary = Field(
        Vocabulary(), description="a vocabulary to load, or to train on the text"
    )
    sequence_lengths: list[int] = Field(
        [128, 512],
        min_length=1,
        description="tokens in a sequence, 8 or more: chunks are cut for each length",
    )
    language: str = Field("en", description="language code, for the splitting into sentences")
    short_seq_prob: float = Field(
        0.1, ge=0, le=1, description="probability that a chunk aims at a shorter length, as in BERT"
    )
    heldout: float = Field(
        0.005, ge=0, lt=1, description="share of the documents that is kept apart for evaluation"
    )
    min_characters: int = Field(200, ge=1, description="shorter documents are dropped")
    max_sentence_characters: int = Field(
        10_000, ge=100, description="longer stretches without a sentence end are dropped"
    )
    english_only: bool = Field(
        False, description="drop documents with fewer than two of eight English stop words"
    )
    drop_duplicates: bool = Field(True, description="keep only the first of equal documents")
    near_duplicates: float | None = Field(
        None,
        ge=0.5,
        lt=1,
        description="share of equal word 5-grams from which a later document is dropped; null: off",
    )
    max_bad_documents: int = Field(
        0, ge=0, description="skip up to this many unreadable documents; more are an error"
    )
    seed: int = Field(0, ge=0, lt=2**64, description="seed of everything random in the corpus")

    @field_validator("sources", mode="before")
    @classmethod
    def _without_null(cls, sources: Any) -> Any:
        """Remove a source that is null, as `sources.NAME=null` sets it."""
        return (
            {name: s for name, s in sources.items() if s is not None}
            if isinstance(sources, dict)
            else sources
        )

    def problems(self) -> list[Problem]:
        """Return values that are impossible together, as (key, problem); empty if none are."""
        problems: list[Problem] = []
        if not self.sources:
            problems.append(("sources", "missing: where documents come from"))
        return problems + [
            (
                "sequence_lengths",
                f"{length} is too short: three places are special tokens, and 8 is the least",
            )
            for length in self.sequence_lengths
            if length < 8
        ]

    def unread_keys(self) -> list[Problem]:
        """Return an unknown language, and the rule for English at another language."""
        unread: list[Problem] = []
        unknown = unknown_language(self.language)
        if unknown is not None:
            unread.append(("language", unknown))
        elif self.english_only and self.language.partition("-")[0] not in ("en", "simple"):
            unread.append(("english_only", f"drops all documents in language={self.language}"))
        return unread
