-- +goose Up
-- The trace of the newest change that is not on the site, as W3C Trace Context writes it; empty where that was not traced.
ALTER TABLE repository ADD COLUMN traceparent TEXT NOT NULL DEFAULT '' CHECK (length(traceparent) <= 55);
