package database

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// postgresChannel is the one Postgres channel in use; ours are named in the payload. So there is one LISTEN, made
	// when the connection is, and none to add or drop as listeners come and go.
	postgresChannel = "antipode"
	// pollEvery bounds how late a wake is whose notification was lost.
	pollEvery  = 5 * time.Second
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
)

// Listen returns a channel that receives after every commit that notified the given channel. The channel holds one
// wake, so a slow listener hears of several commits once, and a writer never waits for a listener. A wake may be
// spurious: look at the database. On Postgres there is also one every 5 seconds and after each reconnect, so that a
// lost notification is only late. stop ends it; the channel is not closed.
func (db *DB) Listen(channel string) (wake <-chan struct{}, stop func()) {
	return db.hub.listen(channel)
}

// Wake wakes this process's listeners on the channel without a commit: when it is time, and not a write, that changed
// what they would read.
func (db *DB) Wake(channel string) { db.hub.wake(channel) }

// hub knows this process's listeners.
type hub struct {
	mu        sync.Mutex
	listeners map[string]map[chan struct{}]struct{}
}

func newHub() *hub { return &hub{listeners: make(map[string]map[chan struct{}]struct{})} }

func (h *hub) listen(channel string) (<-chan struct{}, func()) {
	wake := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners[channel] == nil {
		h.listeners[channel] = make(map[chan struct{}]struct{})
	}
	h.listeners[channel][wake] = struct{}{}
	return wake, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.listeners[channel], wake)
	}
}

func (h *hub) wake(channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	signal(h.listeners[channel])
}

func (h *hub) wakeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, listeners := range h.listeners {
		signal(listeners)
	}
}

func signal(listeners map[chan struct{}]struct{}) {
	for wake := range listeners {
		select {
		case wake <- struct{}{}:
		default: // one is waiting already, and will be read after this commit
		}
	}
}

// listener hears on a connection of its own what other processes commit.
type listener struct {
	config   *pgx.ConnConfig
	instance string
	hub      *hub
	logger   *slog.Logger
}

// startListener runs until the returned stop is called, which waits for the end.
func startListener(
	ctx context.Context, config *pgx.ConnConfig, instance string, h *hub, logger *slog.Logger,
) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it lives until Close, not until Open returns
	l := &listener{config: config, instance: instance, hub: h, logger: logger}
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	running.Go(func() { l.poll(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// poll wakes everyone now and then, whatever became of the notifications.
func (l *listener) poll(ctx context.Context) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.hub.wakeAll()
		}
	}
}

// run keeps a listening connection, with back-off while there is none to be had.
func (l *listener) run(ctx context.Context) {
	backoff := backoffMin
	for {
		began := time.Now()
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > backoffMax {
			backoff = backoffMin
		}
		wait := backoff/2 + rand.N(backoff/2)
		l.logger.Warn("notifications of the database are interrupted", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		backoff = min(2*backoff, backoffMax)
	}
}

// listen connects, and passes notifications on until the connection breaks.
func (l *listener) listen(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer l.close(ctx, conn)
	if _, err := conn.Exec(ctx, "LISTEN "+postgresChannel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.hub.wakeAll() // what was committed while nobody listened
	for {
		if err := l.wait(ctx, conn); err != nil {
			return err
		}
	}
}

// wait passes on one notification, or finds after a quiet while that the connection still works.
func (l *listener) wait(ctx context.Context, conn *pgx.Conn) error {
	quiet, cancel := context.WithTimeout(ctx, 2*pollEvery)
	defer cancel()
	notification, err := conn.WaitForNotification(quiet)
	if err == nil {
		l.dispatch(notification.Payload)
		return nil
	}
	if ctx.Err() != nil || quiet.Err() == nil || conn.IsClosed() {
		return fmt.Errorf("wait: %w", err)
	}
	// A peer that vanished without a word is only found by asking.
	pinging, cancel := context.WithTimeout(ctx, pollEvery)
	defer cancel()
	if err := conn.Ping(pinging); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// dispatch wakes a channel's listeners, unless this process committed it and has woken them already.
func (l *listener) dispatch(payload string) {
	instance, channel, _ := strings.Cut(payload, " ")
	if instance != l.instance {
		l.hub.wake(channel)
	}
}

func (l *listener) close(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := conn.Close(ctx); err != nil {
		l.logger.Debug("close the database's notification connection", "error", err)
	}
}
