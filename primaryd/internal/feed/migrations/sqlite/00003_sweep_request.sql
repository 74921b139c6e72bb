-- +goose Up
-- How often a sweep was asked for, so that a replica which does not sweep can tell the one that does.
ALTER TABLE feed ADD COLUMN sweeps_requested BIGINT NOT NULL DEFAULT 0;
