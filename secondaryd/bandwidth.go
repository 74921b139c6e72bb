package main

import (
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/registry"
)

// bandwidthSettings cap bytes per second: download what is read from the primary's registry, upload what is written to
// the site's own. 0 is no cap.
type bandwidthSettings struct {
	// Bytes a second read from the primary's registry at most, over all copies; 0 is no cap.
	Download config.Size `yaml:"download"`
	// Bytes a second written to the site's registry at most; 0 is no cap.
	Upload config.Size `yaml:"upload"`
	// Other caps for a part of each day, in the daemon's local time.
	// Limits: windows of one direction must not overlap.
	Windows []windowSettings `yaml:"windows"`
}

// windowSettings are other caps for a part of each day, in the daemon's local time. A direction that is left out keeps
// the cap that it has outside of the window.
type windowSettings struct {
	// When the window begins.
	// Type: time of day.
	// Limits: `00:00` to `23:59`.
	// Required.
	From *config.Clock `yaml:"from"`
	// When it ends. Before `from`: on the next day.
	// Type: time of day.
	// Limits: `00:00` to `24:00`, not `from`.
	// Required.
	To *config.Clock `yaml:"to"`
	// The cap within the window, 0 for none. Left out, the one outside of it holds.
	// Type: size.
	// Limits: 0, or at least 1KiB; one of the two is required.
	Download *config.Size `yaml:"download"`
	// The same for the other direction.
	// Type: size.
	// Limits: the same.
	Upload *config.Size `yaml:"upload"`
}

func (s bandwidthSettings) download() *registry.Bandwidth {
	return s.pace(s.Download, func(w windowSettings) *config.Size { return w.Download })
}

func (s bandwidthSettings) upload() *registry.Bandwidth {
	return s.pace(s.Upload, func(w windowSettings) *config.Size { return w.Upload })
}

// pace makes the cap of one direction; nil where there is none at any time.
func (s bandwidthSettings) pace(base config.Size, of func(windowSettings) *config.Size) *registry.Bandwidth {
	var windows []registry.Window
	for _, w := range s.Windows {
		if rate := of(w); rate != nil {
			windows = append(windows, registry.Window{
				From: time.Duration(*w.From), To: time.Duration(*w.To), BytesPerSecond: int64(*rate),
			})
		}
	}
	if base == 0 && len(windows) == 0 {
		return nil
	}
	return registry.NewBandwidth(int64(base), windows)
}

func (s bandwidthSettings) check(p *config.Problems) {
	p.CheckRate("replication.bandwidth.download", s.Download)
	p.CheckRate("replication.bandwidth.upload", s.Upload)
	for i, w := range s.Windows {
		key := fmt.Sprintf("replication.bandwidth.windows[%d]", i)
		w.check(p, key)
		for j, other := range s.Windows[:i] {
			if w.overlaps(other) {
				p.Add(key, "overlaps windows[%d], so that two caps would be in force at once", j)
			}
		}
	}
}

func (w windowSettings) check(p *config.Problems, key string) {
	if w.From == nil {
		p.Add(key+".from", "is required")
	} else if *w.From == endOfDay {
		p.Add(key+".from", "the day begins at 00:00")
	}
	switch {
	case w.To == nil:
		p.Add(key+".to", "is required")
	case w.From != nil && *w.From == *w.To:
		p.Add(key+".to", "the window ends at %s where it begins; from 00:00 to 24:00 is the whole day", *w.To)
	}
	if w.Download == nil && w.Upload == nil {
		p.Add(key, "changes nothing; give it download, upload or both")
	}
	if w.Download != nil {
		p.CheckRate(key+".download", *w.Download)
	}
	if w.Upload != nil {
		p.CheckRate(key+".upload", *w.Upload)
	}
}

// overlaps says whether two windows cap the same direction at the same time.
func (w windowSettings) overlaps(other windowSettings) bool {
	if (w.Download == nil || other.Download == nil) && (w.Upload == nil || other.Upload == nil) {
		return false
	}
	for _, one := range w.spans() {
		for _, two := range other.spans() {
			if one[0] < two[1] && two[0] < one[1] {
				return true
			}
		}
	}
	return false
}

// endOfDay is 24:00.
const endOfDay = config.Clock(24 * time.Hour)

// spans is the window as times of one day: two of them where it goes past midnight, none where it has a mistake.
func (w windowSettings) spans() [][2]config.Clock {
	switch {
	case w.From == nil || w.To == nil || *w.From == *w.To || *w.From == endOfDay:
		return nil
	case *w.From < *w.To:
		return [][2]config.Clock{{*w.From, *w.To}}
	}
	return [][2]config.Clock{{*w.From, endOfDay}, {0, *w.To}}
}
