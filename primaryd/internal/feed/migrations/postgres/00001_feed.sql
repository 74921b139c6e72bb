-- +goose Up
CREATE TABLE feed (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    id        TEXT   NOT NULL,
    head      BIGINT NOT NULL
);

CREATE TABLE repository (
    name             TEXT   COLLATE "C" PRIMARY KEY,
    revision         BIGINT NOT NULL,
    changed_at       BIGINT NOT NULL,
    hint             TEXT   NOT NULL,
    fingerprint      TEXT   NOT NULL,
    fingerprint_open BIGINT NOT NULL,
    swept_at         BIGINT NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX repository_revision ON repository (revision);
