-- +goose Up
ALTER TABLE site ADD COLUMN swept_at BIGINT; -- when the last round of the site's sweep ended; NULL before the first start
