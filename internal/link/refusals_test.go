package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestRefusalsAreCountedAndLoggedAtARate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		metrics := NewMetrics(prometheus.NewRegistry())
		r := newRefusals(slog.New(slog.NewTextHandler(&log, nil)), metrics)
		remote := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1234}
		lines := func() int { return strings.Count(log.String(), "TLS handshake refused") }

		for range 1000 {
			r.report(remote, errors.New("unknown authority"))
		}
		if lines() != refusalBurst {
			t.Errorf("%d lines for 1000 refusals at once", lines())
		}
		<-time.After(3 * refusalInterval)
		r.report(remote, errors.New("unknown authority"))
		if lines() != refusalBurst+1 {
			t.Errorf("%d lines after a pause", lines())
		}
		r.report(remote, fmt.Errorf("probe: %w", io.EOF))
		if got := testutil.ToFloat64(metrics.refusals); got != 1001 || lines() != refusalBurst+1 {
			t.Errorf("a TCP probe counts: %v refusals, %d lines", got, lines())
		}
		if !strings.Contains(log.String(), "192.0.2.1:1234") {
			t.Error("the remote address is not in the log")
		}
	})
}
