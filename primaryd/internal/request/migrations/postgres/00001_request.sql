-- +goose Up
CREATE TABLE request (
    id         TEXT   PRIMARY KEY NOT NULL, -- the node's name, a slash, and a random text
    node       TEXT   NOT NULL,
    ask        TEXT   NOT NULL, -- JSON
    asked_by   TEXT   NOT NULL,
    asked_at   BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    answer     TEXT   -- JSON; NULL while there is none
);
CREATE INDEX request_open ON request (node, asked_at) WHERE answer IS NULL;
CREATE INDEX request_expired ON request (expires_at);
