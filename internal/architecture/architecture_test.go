// Package architecture holds the import-direction test and nothing else.
//
// Every package of the module stands on a floor and imports only from the floors below its own. The test also keeps
// protobuf out of the domain, the registry library in one package, and everything internal out of the public client.
// A package that it does not know fails it, so that a new one is placed on purpose.
package architecture

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The floors, lowest first. Packages of one floor do not import each other.
const (
	contract    = iota // generated from the protos
	ground             // what even parts of the foundation share
	instruments        // how all the others are seen: logs, metrics, traces
	foundation         // what knows nothing of replication: database, registry, link
	equipment          // built on one part of the foundation
	domain             // what the daemons know: the feed, the nodes, the tracking table, the plan
	intake             // what turns the outer world into the domain's terms
	workers            // what runs: the follower, the replication, the sweeps
	fronts             // what answers: services, pages, the command line; they may ask the workers, never the reverse
	mains              // what puts the parts together
	outside            // tests of the whole
)

// place says where a package stands and what it may see beyond the floors below.
type place struct {
	floor int
	wire  bool // may import the generated code and protobuf
	oras  bool // may import the registry library
	test  bool // test support: imported by tests, the demo and other test support alone
	shut  bool // may import nothing internal
}

// places is the plan, by path below the module.
func places() map[string]place {
	return map[string]place{
		"gen/antipode/v1":                  {floor: contract, wire: true},
		"internal/connections":             {floor: ground},
		"internal/database":                {floor: foundation},
		"internal/link":                    {floor: foundation, wire: true},
		"internal/registry":                {floor: foundation, oras: true},
		"internal/reference":               {floor: foundation, test: true},
		"internal/httpaccess":              {floor: foundation},
		"internal/gateway":                 {floor: equipment, wire: true},
		"internal/registrytest":            {floor: foundation, test: true},
		"internal/telemetry":               {floor: instruments},
		"internal/telemetry/telemetrytest": {floor: instruments, test: true},
		"client":                           {floor: equipment, wire: true, shut: true},
		"internal/authority":               {floor: equipment},
		"internal/checkup":                 {floor: equipment},
		"internal/config":                  {floor: equipment},
		"internal/lease":                   {floor: equipment},
		"internal/database/databasetest":   {floor: equipment, test: true},
		"internal/browsertest":             {floor: equipment, test: true},
		"internal/transfer":                {floor: equipment},
		"primaryd/internal/feed":           {floor: domain},
		"primaryd/internal/node":           {floor: domain},
		"secondaryd/internal/plan":         {floor: domain},
		"secondaryd/internal/tracking":     {floor: domain},
		"primaryd/internal/listing":        {floor: intake},
		"primaryd/internal/notification":   {floor: intake},
		"internal/cli":                     {floor: fronts, wire: true},
		"primaryd/internal/dashboard":      {floor: fronts},
		"primaryd/internal/doctor":         {floor: fronts, wire: true},
		"primaryd/internal/request":        {floor: intake},
		"primaryd/internal/service":        {floor: fronts, wire: true},
		"primaryd/internal/setup":          {floor: fronts},
		"primaryd/internal/sweep":          {floor: workers},
		"secondaryd/internal/follow":       {floor: workers},
		"secondaryd/internal/replica":      {floor: workers},
		"secondaryd/internal/replicate":    {floor: workers},
		"secondaryd/internal/doctor":       {floor: fronts, wire: true},
		"secondaryd/internal/service":      {floor: fronts, wire: true},
		"secondaryd/internal/sweep":        {floor: workers},
		"demo":                             {floor: mains, wire: true, test: true},
		"primaryd":                         {floor: mains, wire: true},
		"secondaryd":                       {floor: mains, wire: true},
		"deploy":                           {floor: outside, test: true},
		"deploy/sbom":                      {floor: mains},
		"bench":                            {floor: outside, wire: true, test: true},
		"e2e":                              {floor: outside, wire: true, test: true},
		"deploy/prometheus":                {floor: outside, test: true},
		"torture":                          {floor: outside, wire: true, test: true},
		"internal/architecture":            {floor: outside, test: true},
	}
}

const (
	module   = "github.com/antipode-registry/antipode/"
	protobuf = "google.golang.org/protobuf/"
	oras     = "oras.land/oras-go/"
)

// source is one package as it was found: paths of the module's own packages are relative to it.
type source struct {
	path        string
	imports     []string
	testImports []string // of its tests, in and outside the package
}

// check returns every breach of the plan, sorted.
func check(plan map[string]place, sources []source) []string {
	var breaches []string
	found := map[string]bool{}
	for _, s := range sources {
		found[s.path] = true
		from, known := plan[s.path]
		if !known {
			breaches = append(breaches, s.path+" has no place: add it to a floor in internal/architecture")
			continue
		}
		for _, to := range s.imports {
			if reason := breach(plan, from, to); reason != "" {
				breaches = append(breaches, fmt.Sprintf("%s imports %s: %s", s.path, to, reason))
			}
		}
		for _, to := range s.testImports {
			if strings.HasPrefix(to, oras) && !from.oras {
				breaches = append(breaches, fmt.Sprintf("tests of %s import %s: only internal/registry may", s.path, to))
			}
		}
	}
	for path := range plan {
		if !found[path] {
			breaches = append(breaches, path+" has a place but no code: remove it from internal/architecture")
		}
	}
	slices.Sort(breaches)
	return breaches
}

// breach says what is wrong with an arrow, or "" where nothing is.
func breach(plan map[string]place, from place, imported string) string {
	switch {
	case strings.HasPrefix(imported, oras) && !from.oras:
		return "only internal/registry may"
	case strings.HasPrefix(imported, protobuf) && !from.wire,
		strings.HasPrefix(imported, "gen/") && !from.wire:
		return "the domain does not see protobuf"
	}
	to, own := plan[imported]
	switch {
	case !own: // another module's, or a package of ours that is reported by itself
		return ""
	case from.shut && strings.Contains(imported, "internal/"):
		return "it is public and imports nothing internal"
	case to.test && !from.test:
		return "it is test support"
	case to.floor >= from.floor:
		return "an arrow that does not run downward"
	}
	return ""
}

func TestImportsRunDownward(t *testing.T) {
	t.Parallel()
	sources, err := read("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, breach := range check(places(), sources) {
		t.Error(breach)
	}
}

// TestCheckFails feeds the check one wrong arrow at a time: a test that cannot fail proves nothing.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, from, imported, want string }{
		{"up", "primaryd/internal/feed", "primaryd/internal/service", "does not run downward"},
		{"worker knows a front", "secondaryd/internal/replicate", "secondaryd/internal/service", "does not run downward"},
		{"sideways", "secondaryd/internal/follow", "secondaryd/internal/replicate", "does not run downward"},
		{"foundation knows the domain", "internal/database", "primaryd/internal/feed", "does not run downward"},
		{"domain sees generated code", "secondaryd/internal/tracking", "gen/antipode/v1", "does not see protobuf"},
		{"domain sees protobuf", "secondaryd/internal/plan", protobuf + "proto", "does not see protobuf"},
		{"client sees the inside", "client", "internal/link", "imports nothing internal"},
		{"registry library elsewhere", "internal/transfer", oras + "v2", "only internal/registry may"},
		{"test support is shipped", "primaryd", "internal/registrytest", "is test support"},
		{"unknown package", "internal/util", "fmt", "internal/util has no place"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sources := append(sound(), source{path: test.from, imports: []string{test.imported}})
			got := check(places(), sources)
			if len(got) != 1 || !strings.Contains(got[0], test.from) || !strings.Contains(got[0], test.want) {
				t.Errorf("%s importing %s: breaches %q, want one that says %q", test.from, test.imported, got, test.want)
			}
		})
	}
}

func TestCheckSeesTestsAndAbsence(t *testing.T) {
	t.Parallel()
	if got := check(places(), sound()); len(got) != 0 {
		t.Errorf("a sound plan has breaches: %q", got)
	}
	tests := append(sound(), source{path: "internal/transfer", testImports: []string{oras + "v2"}})
	if got := check(places(), tests); len(got) != 1 || !strings.Contains(got[0], "only internal/registry") {
		t.Errorf("the registry library in a test: %q", got)
	}
	if got := check(places(), sound()[1:]); len(got) != 1 || !strings.Contains(got[0], "no code") {
		t.Errorf("a place without code: %q", got)
	}
	allowed := append(sound(),
		source{path: "primaryd", imports: []string{"primaryd/internal/service", "gen/antipode/v1"}},
		source{path: "internal/registry", imports: []string{oras + "v2", "net/http"}},
		source{path: "internal/database", testImports: []string{"internal/database/databasetest"}},
		source{path: "demo", imports: []string{"internal/registrytest"}},
	)
	if got := check(places(), allowed); len(got) != 0 {
		t.Errorf("allowed arrows are breaches: %q", got)
	}
}

// sound is every placed package without an import.
func sound() []source {
	var all []source
	for path := range places() {
		all = append(all, source{path: path})
	}
	return all
}
