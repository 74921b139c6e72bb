package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// kind is a kind of fault.
type kind string

// The kinds of faults.
const (
	kill      kind = "kill"      // SIGKILL, and started again at the end
	restart   kind = "restart"   // SIGTERM, and started again at the end
	freeze    kind = "freeze"    // SIGSTOP, and SIGCONT at the end
	cut       kind = "cut"       // connections broken, new ones refused
	delay     kind = "delay"     // every packet
	throttle  kind = "throttle"  // few bytes a second
	halfOpen  kind = "half-open" // accepted, and nothing passes in one direction
	broken    kind = "reset"     // every connection is reset soon after it is made
	misbehave kind = "misbehave" // a registry answers wrongly
	notify    kind = "notify"    // notifications are lost, refused, doubled, delayed, reordered
	full      kind = "full"      // a disk: no byte is free
	renew     kind = "renew"     // a certificate is replaced; it is over at once
	rewind    kind = "rewind"    // a database is copied, and its copy put back at the end
)

// fault is one fault of a plan.
type fault struct {
	Number int
	At     time.Duration // since the start
	Lasts  time.Duration
	Kind   kind
	Target string
	How    string // a mood, a delivery or a direction, where the kind has one
	Amount int    // ms of a delay, KB/s of a throttle
}

func (f fault) String() string {
	text := fmt.Sprintf("#%d %s %s", f.Number, f.Kind, f.Target)
	if f.How != "" {
		text += ": " + f.How
	}
	if f.Amount != 0 {
		text += fmt.Sprintf(" %d", f.Amount)
	}
	return text
}

// parts names what faults may be done to.
type parts struct {
	frozen, killed, restarted, links, fronts, certificates, disks []string

	// rewound says of each disk of a database in which ways a copy of it may be put back.
	rewound []rewinding
}

// rewinding is a way to put back a copy of a database.
type rewinding struct{ disk, how string }

// planner draws a plan. Two faults never overlap on one target, and all have ended when the time is over.
type planner struct {
	random *rand.Rand
	parts  parts
	total  time.Duration
	taken  map[string]time.Duration // until when
}

// plan is what breaks when, by seed and duration and the parts that there are, in the order of its beginnings.
func plan(seed uint64, total time.Duration, of parts) []fault {
	p := planner{random: rand.New(rand.NewPCG(seed, 1)), parts: of, total: total, taken: map[string]time.Duration{}}
	var all []fault
	for at := p.between(500, 2000); at < total-time.Second; at += p.gap() {
		f := p.draw(at)
		if until, busy := p.taken[f.Target]; busy && at < until {
			continue
		}
		all = append(all, p.take(f))
		if f.Kind == rewind && f.Target == primaryData && f.Lasts > rewoundFar {
			if c := p.unseen(f); p.taken[c.Target] <= c.At {
				all = append(all, p.take(c))
			}
		}
	}
	slices.SortStableFunc(all, func(a, b fault) int { return cmp.Compare(a.At, b.At) })
	for i := range all {
		all[i].Number = i + 1
	}
	return all
}

// take keeps others from the fault's target until a second after it.
func (p *planner) take(f fault) fault {
	p.taken[f.Target] = f.At + f.Lasts + time.Second
	return f
}

// rewoundFar is the age of a copy that lacks so much that a quiet repository may change, and be done with, before the
// feed has counted over it all again.
const rewoundFar = 15 * time.Second

// unseen cuts the site off while primaryd's database is put back, and for somewhat longer than what is lost took: the
// copy may then have counted beyond the site's cursor before the site asks again.
func (p *planner) unseen(f fault) fault {
	at := max(f.At, f.At+f.Lasts-500*time.Millisecond)
	return fault{At: at, Lasts: min(f.Lasts+p.between(5000, 15_000), p.total-at), Kind: cut, Target: followLink}
}

// gap is the time from one fault to the next: short, with a calm now and then in which the site can come to rest.
func (p *planner) gap() time.Duration {
	if p.random.IntN(9) == 0 {
		return p.between(4000, 9000)
	}
	return p.between(100, 2500)
}

func (p *planner) between(least, most int) time.Duration {
	return time.Duration(least+p.random.IntN(most-least)) * time.Millisecond
}

func (p *planner) one(of []string) string { return of[p.random.IntN(len(of))] }

func (p *planner) draw(at time.Duration) fault {
	f := fault{At: at, Lasts: p.between(300, 6000)}
	switch n := p.random.IntN(107); {
	case n < 16 && len(p.parts.killed) > 0:
		f.Kind, f.Target, f.Lasts = kill, p.one(p.parts.killed), p.between(0, 3000)
	case n < 20 && len(p.parts.restarted) > 0:
		f.Kind, f.Target, f.Lasts = restart, p.one(p.parts.restarted), p.between(0, 2000)
	case n < 34:
		f.Kind, f.Target = freeze, p.one(p.parts.frozen)
		if p.random.IntN(6) == 0 {
			f.Lasts = p.between(10_000, 40_000) // longer than any lease
		}
	case n < 61:
		p.drawLink(&f)
	case n < 82:
		f.Kind, f.Target = misbehave, p.one(p.parts.fronts)
		f.How = string(moods()[p.random.IntN(len(moods()))])
	case n < 93:
		f.Kind, f.Target = notify, "notifications"
		f.How = string(deliveries()[p.random.IntN(len(deliveries()))])
	case n < 98:
		f.Kind, f.Target = full, p.one(p.parts.disks)
	case n < 105 && len(p.parts.rewound) > 0:
		// On the disk, as nothing else may be done to it meanwhile.
		way := p.parts.rewound[p.random.IntN(len(p.parts.rewound))]
		f.Kind, f.Target, f.How, f.Lasts = rewind, way.disk, way.how, p.between(1000, 8000)
		if p.random.IntN(2) == 0 {
			f.Lasts += rewoundFar
		}
	default:
		f.Kind, f.Target, f.Lasts = renew, p.one(p.parts.certificates), 0
	}
	f.Lasts = min(f.Lasts, p.total-at)
	return f
}

func (p *planner) drawLink(f *fault) {
	f.Target = p.one(p.parts.links)
	f.How = p.one([]string{"upstream", "downstream"})
	switch p.random.IntN(5) {
	case 0:
		f.Kind, f.How = cut, ""
	case 1:
		f.Kind, f.Amount = delay, 50+p.random.IntN(1500)
	case 2:
		f.Kind, f.Amount = throttle, 5+p.random.IntN(100)
	case 3:
		f.Kind = halfOpen
		f.Lasts = p.between(1000, 20_000)
	default:
		f.Kind, f.How, f.Amount = broken, "downstream", p.random.IntN(300)
	}
}
