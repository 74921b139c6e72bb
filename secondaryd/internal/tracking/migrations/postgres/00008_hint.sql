-- +goose Up
ALTER TABLE repository ADD COLUMN hint TEXT NOT NULL DEFAULT ''; -- which tags were announced to be touched, as JSON
