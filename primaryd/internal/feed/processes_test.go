package feed_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// What makes a process of the test binary a writer: the database, and which of the writers it is.
const (
	writerDatabase = "ANTIPODE_TEST_WRITER_DATABASE"
	writerNumber   = "ANTIPODE_TEST_WRITER_NUMBER"
)

// writerAppends is how often each writer appends, writerRepositories what they meet on.
const (
	writerAppends      = 25
	writerRepositories = 40
)

func TestMain(m *testing.M) {
	if url := os.Getenv(writerDatabase); url != "" {
		if err := write(context.Background(), url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// write is a writer's life: a replica of primaryd as far as the feed is concerned.
func write(ctx context.Context, url string) error {
	number, err := strconv.Atoi(os.Getenv(writerNumber))
	if err != nil {
		return err
	}
	db, err := database.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	f, err := feed.Open(ctx, db, feed.Options{})
	if err != nil {
		return err
	}
	go func() { _ = f.Run(ctx) }() // ends with the process
	for i := range writerAppends {
		// The writers meet on the same repositories, in different orders.
		a, b := (number*7+i)%writerRepositories, (number*3+i*5)%writerRepositories
		if _, err := f.Append(ctx, push(name(a), fmt.Sprint("v", number)), push(name(b), "latest")); err != nil {
			return err
		}
	}
	return nil
}

// TestReadersMissNothingOfSixteenProcesses has sixteen processes write to one Postgres while readers on two others follow
// with cursors. No reader ever sees a revision at or below its cursor, and at the end each has the last revision of all.
func TestReadersMissNothingOfSixteenProcesses(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	const writers, readers = 16, 4
	db := databasetest.OpenPostgres(t)
	replicas := []*feed.Feed{start(t, db), start(t, databasetest.Shared(t, db))}
	written := make(chan struct{})
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), writerDatabase+"="+databasetest.URL(t, db), writerNumber+"="+strconv.Itoa(w))
			if output, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("writer %d: %v: %s", w, err, output)
			}
		})
	}
	seen := make([]map[string]int64, readers)
	for r := range readers {
		reading.Go(func() {
			var err error
			if seen[r], err = followUntil(t, replicas[r%2], written, 7+r); err != nil {
				t.Error(err)
			}
		})
	}
	writing.Wait()
	close(written)
	reading.Wait()
	rows, standing, err := replicas[0].Read(t.Context(), feed.Cursor{}, 1000)
	if err != nil || len(rows) != writerRepositories || rows[len(rows)-1].Revision != standing.Head {
		t.Fatalf("%d rows, head %d, %v", len(rows), standing.Head, err)
	}
	for r, last := range seen {
		for _, row := range rows {
			if last[row.Repository] != row.Revision {
				t.Errorf("reader %d has %s at %d, want %d", r, row.Repository, last[row.Repository], row.Revision)
			}
		}
	}
}
