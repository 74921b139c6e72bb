package registry

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// pieces counts the writes to a connection.
type pieces struct {
	net.Conn
	written *atomic.Int64
}

func (p pieces) Write(b []byte) (int, error) {
	p.written.Add(1)
	return p.Conn.Write(b)
}

// A manifest that leaves headers first costs a system call more on either side, and most manifests are small.
func TestSmallManifestIsWrittenInOnePiece(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 3, 64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerDigest, img.Digest)
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(server.Close)
	for _, capped := range []bool{false, true} {
		var written atomic.Int64
		r := open(t, server.URL, func(cfg *Config) {
			made, err := baseTransport(Config{Concurrency: 1})
			if err != nil {
				t.Fatal(err)
			}
			transport, ok := made.(*http.Transport)
			if !ok {
				t.Fatalf("%T", made)
			}
			transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
				return pieces{conn, &written}, err
			}
			cfg.Transport = transport
			if capped {
				cfg.Upload = NewBandwidth(1<<20, nil)
			}
		})
		ctx := WithGuard(t.Context(), func() error { return nil })
		if err := r.PutManifest(ctx, repo, "v1", manifestOf(img)); err != nil {
			t.Fatal(err)
		}
		if n := written.Load(); (n == 1) == capped {
			t.Errorf("capped %t: written in %d pieces", capped, n)
		}
	}
}
