-- +goose Up
-- Who leads in what, one row for each role. The row stays when nobody leads: its fence is never given out twice.
CREATE TABLE lease (
    name    TEXT   NOT NULL PRIMARY KEY,
    owner   TEXT   NOT NULL DEFAULT '', -- who leads, or led last
    token   TEXT   NOT NULL DEFAULT '', -- the term's own mark, which no other term has
    fence   BIGINT NOT NULL DEFAULT 0,  -- grows with every term
    ends_at BIGINT NOT NULL DEFAULT 0   -- 0: given back
);
