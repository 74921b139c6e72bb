-- +goose Up
CREATE TABLE node (
    name        TEXT   PRIMARY KEY NOT NULL,
    reported_at BIGINT NOT NULL,
    status      TEXT   NOT NULL
);
