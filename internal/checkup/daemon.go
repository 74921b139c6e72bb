package checkup

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// maxScrape bounds what is read of a daemon's metrics.
const maxScrape = 64 << 20

// Series are a daemon's metrics: values by name and labels, as they are exposed: `name{label="value"}`.
type Series map[string]float64

// Scrape reads the metrics that a daemon shows at base, its HTTP address as a URL.
func Scrape(ctx context.Context, base string) (Series, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	status, body, err := Ask(req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s answers HTTP %d", req.URL, status)
	}
	series := Series{}
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		name, value, found := cutLast(lines.Text(), " ")
		if number, err := strconv.ParseFloat(value, 64); found && err == nil && !strings.HasPrefix(name, "#") {
			series[name] = number
		}
	}
	return series, lines.Err()
}

// Ask sends one request to a daemon, directly, and reads the answer. Its context bounds it.
func Ask(req *http.Request) (status int, body string, err error) {
	transport := &http.Transport{DisableKeepAlives: true} // no proxy: the daemon is ours, and most often on loopback
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // read as far as it matters
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxScrape))
	return resp.StatusCode, string(text), err
}

func cutLast(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}
