-- +goose Up
-- How each node was, a row for each minute in which it reported; pruned after a day.
CREATE TABLE node_sample (
    node          TEXT   NOT NULL,
    minute        BIGINT NOT NULL, -- when it began, in milliseconds
    lag_ms        BIGINT NOT NULL, -- the longest
    lag_revisions BIGINT NOT NULL, -- the most
    bytes_copied  BIGINT NOT NULL, -- within the minute
    failed        BIGINT NOT NULL, -- at its end
    held          BIGINT NOT NULL, -- at its end
    PRIMARY KEY (node, minute)
);
