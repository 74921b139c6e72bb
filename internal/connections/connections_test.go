package connections_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/connections"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door is a Listener with room for some, and its log.
type door struct {
	*connections.Listener
	t   *testing.T
	log *strings.Builder
}

func open(t *testing.T, most int) door {
	t.Helper()
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := &strings.Builder{}
	d := door{connections.Limit(inner, most, slog.New(slog.NewTextHandler(log, nil))), t, log}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// dial connects, without being accepted yet.
func (d door) dial() net.Conn {
	d.t.Helper()
	client, err := (&net.Dialer{}).DialContext(d.t.Context(), "tcp", d.Addr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = client.Close() })
	return client
}

// enter connects and is accepted.
func (d door) enter() (client, server net.Conn) {
	d.t.Helper()
	client = d.dial()
	server, err := d.Accept()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = server.Close() })
	return client, server
}

// left waits for a client to be hung up on.
func (d door) left(client net.Conn) {
	d.t.Helper()
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
		d.t.Errorf("it read %d, %v", n, err)
	}
}

// stays says that a connection works, both ways.
func (d door) stays(client, server net.Conn) {
	d.t.Helper()
	if _, err := io.WriteString(client, "x"); err != nil {
		d.t.Error(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		d.t.Error(err)
	}
}

func TestTheOneThatRestsLongestGoes(t *testing.T) {
	t.Parallel()
	d := open(t, 3)
	first, firstHere := d.enter()
	second, secondHere := d.enter()
	third, _ := d.enter()
	d.Busy(firstHere)
	d.Busy(secondHere)
	d.Rest(secondHere) // later than the third
	fourth, fourthHere := d.enter()
	d.left(third)
	d.stays(first, firstHere)
	d.stays(second, secondHere)
	d.stays(fourth, fourthHere)
	d.enter()
	d.left(second)
	if lines := strings.Count(d.log.String(), "too many connections"); lines != 1 {
		t.Errorf("%d lines:\n%s", lines, d.log)
	}
}

func TestANewOneGoesWhenAllAreBusy(t *testing.T) {
	t.Parallel()
	d := open(t, 2)
	one, oneHere := d.enter()
	two, twoHere := d.enter()
	d.Busy(oneHere)
	d.Busy(twoHere)
	three := d.dial()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := d.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	d.left(three)
	d.stays(one, oneHere)
	d.stays(two, twoHere)
	if err := oneHere.Close(); err != nil {
		t.Error(err)
	}
	four := d.dial()
	fourHere := <-accepted
	d.stays(four, fourHere)
	if err := fourHere.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnOwnerHoldsSoMany(t *testing.T) {
	t.Parallel()
	d := open(t, 10)
	_, one := d.enter()
	_, two := d.enter()
	_, three := d.enter()
	_, other := d.enter()
	if !d.Own(one, "a", 2) || !d.Own(two, "a", 2) || d.Own(three, "a", 2) || !d.Own(other, "b", 2) {
		t.Error("two are a's, and one b's")
	}
	for range 2 { // closing twice gives one back
		_ = one.Close()
	}
	if !d.Own(three, "a", 2) {
		t.Error("a has room again")
	}
	if d.Own(one, "a", 3) {
		t.Error("a closed one is nobody's")
	}
	// What is owned is not at rest, however many come.
	for range 12 {
		d.enter()
	}
	if _, err := two.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}

func TestStrangersAreNoConcern(t *testing.T) {
	t.Parallel()
	d := open(t, 1)
	a, b := net.Pipe()
	d.Rest(a)
	d.Busy(a)
	if !d.Own(a, "a", 0) {
		t.Error("it is not counted here")
	}
	_, _ = a.Close(), b.Close()
	ended, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ended.Close()
	if _, err := connections.Limit(ended, 1, slog.New(slog.DiscardHandler)).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
