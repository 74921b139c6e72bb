-- +goose Up
ALTER TABLE site ADD COLUMN promoted_at BIGINT; -- when the site ceased to follow its primary; NULL while it follows
