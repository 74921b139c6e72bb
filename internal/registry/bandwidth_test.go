package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

const mebibyte = 1 << 20

// zeros is a body of n bytes.
func zeros(n int64) io.ReadCloser { return io.NopCloser(io.LimitReader(zero{}, n)) }

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// fast is a registry that takes and gives at once whatever it is asked for; blobs are of size bytes.
func fast(t testing.TB, size int64, edit func(*Config)) *Registry {
	t.Helper()
	return carried(t, func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			defer func() { _ = req.Body.Close() }()
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
		}
		switch req.Method {
		case http.MethodPost:
			return respond(http.StatusAccepted, "", "Location", "/v2/"+repo+"/blobs/uploads/1"), nil
		case http.MethodPut:
			return respond(http.StatusCreated, ""), nil
		case http.MethodDelete:
			return respond(http.StatusNoContent, ""), nil
		}
		resp := respond(http.StatusOK, "")
		resp.Body, resp.ContentLength = zeros(size), size
		return resp, nil
	}, edit)
}

func sized(size int64) Descriptor { return Descriptor{Digest: registrytest.Digest(nil), Size: size} }

// download reads a whole blob.
func download(ctx context.Context, r *Registry, size int64) error {
	body, err := r.Blob(ctx, repo, sized(size), 0)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	_, err = io.Copy(io.Discard, body)
	return err
}

func wantElapsed(t *testing.T, what string, want time.Duration, do func() error) {
	t.Helper()
	began := time.Now()
	if err := do(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if took := time.Since(began); took != want {
		t.Errorf("%s took %s, want %s", what, took, want)
	}
}

func TestBandwidthIsExact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 3 * mebibyte
		capped := func(in, out *Bandwidth) *Registry {
			return fast(t, size, func(cfg *Config) { cfg.Download, cfg.Upload = in, out })
		}
		get := func(r *Registry) func() error {
			return func() error { return download(t.Context(), r, size) }
		}
		put := func(r *Registry) func() error {
			return func() error {
				_, err := r.PutBlob(t.Context(), repo, sized(size), "", func() (io.ReadCloser, error) { return zeros(size), nil })
				return err
			}
		}
		one := func() *Bandwidth { return NewBandwidth(mebibyte, nil) }
		wantElapsed(t, "download", 3*time.Second, get(capped(one(), nil)))
		wantElapsed(t, "upload", 3*time.Second, put(capped(nil, one())))
		wantElapsed(t, "download past the upload's cap", 0, get(capped(nil, one())))
		wantElapsed(t, "upload past the download's cap", 0, put(capped(one(), nil)))
		wantElapsed(t, "no cap", 0, get(capped(NewBandwidth(0, nil), nil)))
		wantElapsed(t, "odd cap", 3*time.Second/2, get(capped(NewBandwidth(2*mebibyte, nil), one())))
		// Far slower than a read per minute: waiting for one's turn is no lack of progress.
		wantElapsed(t, "slow download", 3*1024*time.Second, get(capped(NewBandwidth(1024, nil), nil)))
		wantElapsed(t, "slow upload", 3*1024*time.Second, put(capped(nil, NewBandwidth(1024, nil))))
	})
}

// TestBandwidthCapsManifestsToo: whatever has a body counts.
func TestBandwidthCapsManifestsToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		img := manifestOf(registrytest.NewImage(1, 8, 10))
		size := int64(len(img.Bytes))
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut {
				_, err := io.Copy(io.Discard, req.Body)
				return respond(http.StatusCreated, "", headerDigest, img.Digest), err
			}
			return respond(http.StatusOK, string(img.Bytes), "Content-Type", img.MediaType), nil
		}, func(cfg *Config) { cfg.Download, cfg.Upload = NewBandwidth(size/2, nil), NewBandwidth(size/4, nil) })
		whole := func(d time.Duration) time.Duration { return d.Truncate(time.Second / 100) }
		began := time.Now()
		if _, err := r.Manifest(t.Context(), repo, img.Digest); err != nil || whole(time.Since(began)) != 2*time.Second {
			t.Errorf("read in %s: %v", time.Since(began), err)
		}
		began = time.Now()
		if err := r.PutManifest(t.Context(), repo, "v1", img); err != nil || whole(time.Since(began)) != 4*time.Second {
			t.Errorf("written in %s: %v", time.Since(began), err)
		}
	})
}

// TestBandwidthIsSharedFairly: the streams of several handles get the same, and together what the cap allows.
func TestBandwidthIsSharedFairly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size, streams = 4 * mebibyte, 4
		shared := NewBandwidth(mebibyte, nil)
		var mu sync.Mutex
		got := make([]int64, streams)
		var group sync.WaitGroup
		began := time.Now()
		for i := range streams {
			r := fast(t, size, func(cfg *Config) { cfg.Download = shared })
			group.Go(func() {
				body, err := r.Blob(t.Context(), repo, sized(size), 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = body.Close() }()
				buffer := make([]byte, 32<<10)
				for err == nil {
					var n int
					n, err = body.Read(buffer)
					mu.Lock()
					got[i] += int64(n)
					mu.Unlock()
				}
			})
		}
		<-time.After(8 * time.Second)
		synctest.Wait()
		mu.Lock()
		for i, n := range got {
			if n < 2*mebibyte-maxPiece || n > 2*mebibyte+maxPiece {
				t.Errorf("stream %d has %d bytes of %d", i, n, got)
			}
		}
		mu.Unlock()
		group.Wait()
		if took := time.Since(began).Round(time.Microsecond); took != 16*time.Second {
			t.Errorf("all took %s", took)
		}
	})
}

// TestBandwidthSavesNothingUp: an idle line gives one piece at once, not the bytes of the whole night.
func TestBandwidthSavesNothingUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := fast(t, 2*mebibyte, func(cfg *Config) { cfg.Download = NewBandwidth(mebibyte, nil) })
		for range 2 {
			<-time.After(time.Hour)
			began := time.Now()
			if err := download(t.Context(), r, 2*mebibyte); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < 1900*time.Millisecond || took > 2*time.Second {
				t.Errorf("took %s", took)
			}
		}
	})
}

func TestBandwidthWaitEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := NewBandwidth(10, nil)
		reason := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		r := fast(t, mebibyte, func(cfg *Config) { cfg.Download, cfg.Upload = slow, slow })
		var group sync.WaitGroup
		group.Go(func() {
			if err := download(ctx, r, mebibyte); !errors.Is(err, reason) {
				t.Errorf("download: %v", err)
			}
		})
		group.Go(func() {
			content := func() (io.ReadCloser, error) { return zeros(mebibyte), nil }
			if _, err := r.PutBlob(ctx, repo, sized(mebibyte), "", content); !errors.Is(err, reason) {
				t.Errorf("upload: %v", err)
			}
		})
		<-time.After(time.Minute)
		began := time.Now()
		cancel(reason)
		group.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s to stop", took)
		}
		if err := slow.wait(t.Context(), 1); err != nil || time.Since(began) > time.Second {
			t.Errorf("what was not used is not given back: %s, %v", time.Since(began), err)
		}
	})
}

// clockNow is the wall clock as windows are written.
func clockNow() time.Duration {
	hour, minute, second := time.Now().Clock()
	return time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second
}

// TestWindowsBeginAndEndInTheMiddleOfABlob reads one blob through two windows: 1 MiB/s, then 4, then no cap at all.
func TestWindowsBeginAndEndInTheMiddleOfABlob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := clockNow()
		b := NewBandwidth(mebibyte, []Window{
			{From: now + 2*time.Second, To: now + 5*time.Second, BytesPerSecond: 4 * mebibyte},
			{From: now + 5*time.Second, To: now + 6*time.Second},
		})
		r := fast(t, 100*mebibyte, func(cfg *Config) { cfg.Download = b })
		began := time.Now()
		body, err := r.Blob(t.Context(), repo, sized(100*mebibyte), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = body.Close() }()
		for _, part := range []struct {
			bytes int64
			until time.Duration
		}{{2 * mebibyte, 2 * time.Second}, {12 * mebibyte, 5 * time.Second}, {86 * mebibyte, 5 * time.Second}} {
			if _, err := io.CopyN(io.Discard, body, part.bytes); err != nil {
				t.Fatal(err)
			}
			if at := time.Since(began); at != part.until {
				t.Errorf("after %d more bytes it is %s, want %s", part.bytes, at, part.until)
			}
		}
	})
}

// TestSlowerWindowHasNoDebt: what many streams have taken ahead at a high limit is not made up for at a low one.
func TestSlowerWindowHasNoDebt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := clockNow()
		b := NewBandwidth(mebibyte, []Window{{From: now + time.Second, To: now + time.Hour, BytesPerSecond: 1000}})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() { _ = b.wait(ctx, mebibyte) }) // ends with ctx
		}
		<-time.After(time.Second)
		cancel()
		group.Wait()
		wantElapsed(t, "first second of the window", time.Second, func() error { return b.wait(t.Context(), 1000) })
	})
}

func TestWindowsFollowTheWallClock(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	hour := time.Hour
	day, night := Window{8 * hour, 18 * hour, 1}, Window{22 * hour, 6*hour + 30*time.Minute, 2}
	cases := map[string]struct {
		windows []Window
		at      time.Time
		want    int64
	}{
		"before":              {[]Window{day}, time.Date(2026, 1, 1, 7, 59, 59, 999_999_999, berlin), 9},
		"begins":              {[]Window{day}, time.Date(2026, 1, 1, 8, 0, 0, 0, berlin), 1},
		"ends":                {[]Window{day}, time.Date(2026, 1, 1, 18, 0, 0, 0, berlin), 9},
		"before midnight":     {[]Window{night}, time.Date(2026, 1, 1, 23, 0, 0, 0, berlin), 2},
		"after midnight":      {[]Window{night}, time.Date(2026, 1, 1, 6, 29, 0, 0, berlin), 2},
		"morning":             {[]Window{night}, time.Date(2026, 1, 1, 6, 30, 0, 0, berlin), 9},
		"the first counts":    {[]Window{{0, 24 * hour, 3}, day}, time.Date(2026, 1, 1, 9, 0, 0, 0, berlin), 3},
		"whole day":           {[]Window{{0, 24 * hour, 3}}, time.Date(2026, 1, 1, 23, 59, 59, 0, berlin), 3},
		"empty":               {[]Window{{hour, hour, 3}}, time.Date(2026, 1, 1, 1, 0, 0, 0, berlin), 9},
		"day of 23 hours":     {[]Window{day}, time.Date(2026, 3, 29, 8, 0, 0, 0, berlin), 1},
		"day of 23 hours, on": {[]Window{day}, time.Date(2026, 3, 29, 18, 0, 0, 0, berlin), 9},
		"day of 25 hours":     {[]Window{day}, time.Date(2026, 10, 25, 17, 59, 0, 0, berlin), 1},
	}
	for name, c := range cases {
		if got := NewBandwidth(9, c.windows).at(c.at); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
