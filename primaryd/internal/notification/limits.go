package notification

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

const (
	// DefaultRate and DefaultBurst are what a machine of two cores makes durable, about twice over: they are there for who
	// sends without end, not for who is busy.
	DefaultRate  = 20_000
	DefaultBurst = 40_000
	// defaultMaxBody holds some thousands of events. Registries send one per request, proxies that batch send more.
	defaultMaxBody = 4 << 20
	// defaultInWork bounds the memory that bodies take: 4096 small ones at once, or 16 of the largest.
	defaultInWork = 64 << 20
	// leastWeight is what a request costs beside its body.
	leastWeight = 16 << 10
	// defaultBodyTimeout is for who sends a body byte by byte. The largest takes a second at 4 MB/s.
	defaultBodyTimeout = 10 * time.Second
	// Wrong secrets that are answered as such, per second and at once; who presents more is put off without a word in the
	// log. The right secret is not asked to wait for them.
	guessRate  = 10
	guessBurst = 100
	// oftenLogged is how often a refusal that comes in floods is worth a line.
	oftenLogged = time.Second
)

// limits are what is admitted at all, each decided before anything is recorded.
type limits struct {
	events  *rate.Limiter
	guesses *rate.Limiter
	inWork  *semaphore.Weighted // bytes
	logged  *rate.Limiter       // of floods
}

func newLimits(opts Options) limits {
	return limits{
		events:  rate.NewLimiter(rate.Limit(opts.Rate), opts.Burst),
		guesses: rate.NewLimiter(guessRate, guessBurst),
		inWork:  semaphore.NewWeighted(opts.InWork),
		logged:  rate.NewLimiter(rate.Every(oftenLogged), 1),
	}
}

// admit says whether the request may be worked on. If so, leave must be called when it is done. A body of a length that
// is not told counts as the largest.
func (h *handler) admit(r *http.Request) (leave func(), given answer, err error) {
	weight := max(r.ContentLength, leastWeight)
	switch {
	case r.ContentLength > h.MaxBody:
		return nil, tooLarge, fmt.Errorf("a body of %d bytes", r.ContentLength)
	case r.ContentLength < 0:
		weight = max(h.MaxBody, leastWeight)
	}
	if !h.inWork.TryAcquire(min(weight, h.InWork)) {
		return nil, busy, errors.New("too many notifications are in work at once")
	}
	leave = func() { h.inWork.Release(min(weight, h.InWork)) }
	if !h.events.Allow() {
		leave()
		return nil, limited, errors.New("more events a second than notifications.rate and burst allow")
	}
	return leave, accepted, nil
}

// charge counts what came with the first event of a request that was admitted. It refuses nothing: an event that has
// arrived is cheaper to record than to hear of again; but the requests after it wait until it is made up for.
func (h *handler) charge(events int) {
	if more := min(events-1, h.Burst); more > 0 {
		h.events.ReserveN(time.Now(), more)
	}
}

// body reads the body within the bounds of size and time.
func (h *handler) body(w http.ResponseWriter, r *http.Request) ([]byte, answer, error) {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(h.BodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, unparseable, fmt.Errorf("bound the time of the body: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.MaxBody))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, tooLarge, err
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, slow, fmt.Errorf("the body did not come within %v: %w", h.BodyTimeout, err)
	case err != nil:
		return nil, unparseable, fmt.Errorf("read the body: %w", err)
	}
	// The deadline would otherwise end a commit that takes longer: the server reads on, to see whether the sender leaves.
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, unparseable, fmt.Errorf("lift the bound on the time of the body: %w", err)
	}
	return body, accepted, nil
}
