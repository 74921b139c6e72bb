-- +goose Up
-- The site as a whole: one row.
CREATE TABLE site (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    feed_id  TEXT    NOT NULL DEFAULT '', -- empty: any feed may be adopted
    revision BIGINT  NOT NULL DEFAULT 0 CHECK (revision >= 0), -- the cursor
    head     BIGINT  NOT NULL DEFAULT 0 CHECK (head >= revision),
    moved_at BIGINT, -- when the cursor moved
    heard_at BIGINT, -- when the primary was heard from
    paused   BOOLEAN NOT NULL DEFAULT FALSE,
    scope    TEXT    NOT NULL DEFAULT '', -- what the site replicates, as configured; empty before the first start
    names    TEXT    NOT NULL DEFAULT '', -- how it names repositories, as configured
    total    BIGINT  NOT NULL DEFAULT 0 CHECK (total >= 0) -- rows of repository, so that nobody counts a million
);
INSERT INTO site (id) VALUES (1);

-- 9223372036854775807 in next_attempt_at means never: a held row that waits for a change or for its release.
CREATE TABLE repository (
    name TEXT NOT NULL PRIMARY KEY CHECK (name <> ''),

    wanted_revision BIGINT   NOT NULL, -- the newest that the primary announced
    synced_revision BIGINT   NOT NULL DEFAULT 0, -- what the site holds; -1 asks for a complete listing
    class           SMALLINT NOT NULL CHECK (class IN (0, 1)), -- 0 live, 1 backfill
    next_attempt_at BIGINT   NOT NULL,

    lease_until BIGINT  NOT NULL DEFAULT 0,
    lease_owner TEXT    NOT NULL DEFAULT '',
    fence       BIGINT  NOT NULL DEFAULT 0,     -- of the newest lease
    verify      SMALLINT NOT NULL DEFAULT 0 CHECK (verify IN (0, 1, 2)), -- the next sync checks the graphs (1), blobs too (2)
    verified_at BIGINT, -- when such a check last found, or made, all whole
    relist      BOOLEAN NOT NULL DEFAULT FALSE, -- a resync was asked for since the claim

    failures          BIGINT NOT NULL DEFAULT 0 CHECK (failures >= 0), -- in a row
    failed_at         BIGINT,
    failure_reference TEXT NOT NULL DEFAULT '',
    failure_side      TEXT NOT NULL DEFAULT '',
    failure_message   TEXT NOT NULL DEFAULT '',

    held_reason TEXT    NOT NULL DEFAULT '',    -- stays until a sync decides anew
    released    BOOLEAN NOT NULL DEFAULT FALSE, -- the next sync goes without the brake

    oldest_unsynced_at     BIGINT, -- the oldest change that is not on the site
    changed_since_claim_at BIGINT, -- the oldest change that the running or last lease does not cover
    last_synced_at         BIGINT,
    tag_count              BIGINT NOT NULL DEFAULT 0,
    tag_sum                TEXT   NOT NULL DEFAULT '', -- of the site's tags after the last success; empty: not known

    -- What the row is apart from who works on it: a lease that is not over makes it 'syncing'.
    phase TEXT NOT NULL GENERATED ALWAYS AS (
        CASE WHEN synced_revision = wanted_revision THEN 'synced'
             WHEN next_attempt_at = 9223372036854775807 THEN 'held'
             WHEN failures > 0 THEN 'failed'
             ELSE 'pending' END) STORED,
    -- When a worker may take the row; NULL when there is nothing to do.
    due_at BIGINT GENERATED ALWAYS AS (
        CASE WHEN synced_revision = wanted_revision THEN NULL
             WHEN lease_until > next_attempt_at THEN lease_until
             ELSE next_attempt_at END) STORED,

    CONSTRAINT synced_is_behind CHECK (synced_revision BETWEEN -1 AND wanted_revision),
    CONSTRAINT lease_has_an_owner CHECK ((lease_until = 0) = (lease_owner = '')),
    CONSTRAINT lease_has_work CHECK (lease_until = 0 OR synced_revision < wanted_revision),
    CONSTRAINT failure_has_a_time CHECK ((failures = 0) = (failed_at IS NULL)),
    CONSTRAINT unsynced_has_an_age CHECK ((synced_revision = wanted_revision) = (oldest_unsynced_at IS NULL)),
    CONSTRAINT synced_is_clean CHECK (synced_revision < wanted_revision OR (failures = 0 AND held_reason = '')),
    CONSTRAINT release_needs_a_hold CHECK (held_reason <> '' OR NOT released),
    CONSTRAINT held_waits CHECK (next_attempt_at < 9223372036854775807
        OR (held_reason <> '' AND NOT released AND failures = 0 AND lease_until = 0))
);

-- A claim: the first entry of a class.
CREATE INDEX repository_due ON repository (class, due_at, name) WHERE due_at IS NOT NULL;
-- Counts, and pages of one state. Holds only what is not synced, hence little once the site has caught up.
CREATE INDEX repository_unsynced ON repository (phase, name, wanted_revision, oldest_unsynced_at)
    WHERE phase <> 'synced';
CREATE INDEX repository_leased ON repository (lease_until) WHERE lease_until > 0;
CREATE INDEX repository_failed ON repository (failed_at) WHERE failed_at IS NOT NULL;
CREATE INDEX repository_last_synced ON repository (last_synced_at) WHERE last_synced_at IS NOT NULL;
-- What waits longest for a check of its whole content.
CREATE INDEX repository_verified ON repository (COALESCE(verified_at, last_synced_at), name) WHERE phase = 'synced';

CREATE TABLE journal (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    repository      TEXT NOT NULL REFERENCES repository (name) ON DELETE CASCADE,
    at              BIGINT NOT NULL,
    action          TEXT   NOT NULL,
    reference       TEXT   NOT NULL,
    digest          TEXT   NOT NULL,
    previous_digest TEXT   NOT NULL,
    detail          TEXT   NOT NULL
);
CREATE INDEX journal_repository ON journal (repository, id);

-- What the site's registry holds. Repositories here are the site's, whose names need not be those that are tracked.
CREATE TABLE content (
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX content_digest ON content (digest, repository);

-- Manifests with a subject that this site wrote, or was about to write: the registry cannot be asked for all of them.
CREATE TABLE referrer (
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    present    BOOLEAN NOT NULL DEFAULT FALSE, -- it was written, by its digest
    PRIMARY KEY (repository, digest)
);

-- Tags that an operator brought back after they were removed; kept until the primary has them again.
CREATE TABLE pin (
    repository TEXT NOT NULL REFERENCES repository (name) ON DELETE CASCADE,
    tag        TEXT NOT NULL,
    digest     TEXT NOT NULL,
    PRIMARY KEY (repository, tag)
);

-- How many tags were removed in which hour (unix hours), for the brake over the whole site.
CREATE TABLE removal (
    hour  BIGINT NOT NULL PRIMARY KEY,
    count BIGINT NOT NULL
);
