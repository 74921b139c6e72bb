package dashboard

import (
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
)

func functions() template.FuncMap {
	return template.FuncMap{
		"age": age, "length": length, "bytes": size, "rate": func(perSecond any) string { return rate(perSecond) },
		"share": share, "isRepository": isRepository, "stamp": stamp, "short": short, "path": repositoryPath,
		"seconds": func(s float64) string { return length(time.Duration(s * float64(time.Second))) },
	}
}

func age(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return length(max(0, time.Since(t))) + " ago"
}

// length is a duration in its two largest units.
func length(d time.Duration) string {
	d = max(0, d)
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}}
	if d < 10*time.Second {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	}
	d = d.Round(time.Second)
	for i, unit := range units {
		if d < unit.size {
			continue
		}
		text := fmt.Sprintf("%d %s", d/unit.size, unit.name)
		if i+1 < len(units) && d%unit.size >= units[i+1].size {
			text += fmt.Sprintf(" %d %s", d%unit.size/units[i+1].size, units[i+1].name)
		}
		return text
	}
	return "0 s"
}

// size is a count of bytes.
func size(n int64) string {
	value, unit := float64(max(0, n)), "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, larger
	}
	if value < 10 && unit != "B" {
		return fmt.Sprintf("%.1f %s", value, unit)
	}
	return fmt.Sprintf("%.0f %s", value, unit)
}

func rate(perSecond any) string {
	switch n := perSecond.(type) {
	case int64:
		return size(n) + "/s"
	case float64:
		return size(int64(n)) + "/s"
	}
	return ""
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// short is enough of a digest to tell it from others by eye.
func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19] + "…"
	}
	return digest
}

// share is part of whole in per cent, rounded down: 100 means all.
func share(part, whole int64) int64 {
	if whole <= 0 {
		return 100
	}
	return min(100, max(0, part*100/whole))
}

func repositoryPath(name string) string {
	return (&url.URL{Path: "/repositories/" + name}).EscapedPath()
}
