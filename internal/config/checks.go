package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
)

// required reports an empty value. Callers skip the checks of keys that may be left out.
func (p *Problems) required(key, value string) bool {
	if value == "" {
		p.Add(key, "is required")
	}
	return value != ""
}

// CheckListen reports a value that is not host:port to listen on. The host may be empty, for all interfaces, and the
// port 0, for any.
func (p *Problems) CheckListen(key, value string) {
	if !p.required(key, value) {
		return
	}
	if _, ok := splitAddress(value); !ok {
		p.Add(key, "expected host:port such as 127.0.0.1:8080, got %q", value)
	}
}

// CheckAddress reports a value that is not host:port to dial.
func (p *Problems) CheckAddress(key, value string) {
	if !p.required(key, value) {
		return
	}
	if host, ok := splitAddress(value); !ok || host == "" {
		p.Add(key, "expected host:port such as primary.example.com:7443, got %q", value)
	}
}

func splitAddress(value string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return "", false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return host, err == nil
}

// CheckFile reports a file that is missing, a directory, or not readable for this process.
func (p *Problems) CheckFile(key, path string) {
	if !p.required(key, path) {
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		p.Add(key, "cannot read %q: %s", path, reason(err))
		return
	case info.IsDir():
		p.Add(key, "%q is a directory, not a file", path)
		return
	case !info.Mode().IsRegular():
		return // opening a pipe would wait for its writer
	}
	file, err := os.Open(path)
	if err != nil {
		p.Add(key, "cannot read %q: %s", path, reason(err))
		return
	}
	_ = file.Close() // nothing was written
}

// reason leaves out the operation and the path, which the message has already.
func reason(err error) string {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		return inner.Err.Error()
	}
	return err.Error()
}

// CheckURL reports a value that is not http://host[:port] or https://host[:port]. It never repeats a value that may
// hold a password.
func (p *Problems) CheckURL(key, value string) {
	if !p.required(key, value) {
		return
	}
	parsed, err := url.Parse(value)
	switch {
	case err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "":
		p.Add(key, "expected a URL such as http://127.0.0.1:5000")
	case parsed.User != nil:
		p.Add(key, "a user or password does not belong in the URL; for a registry, log in with docker login")
	case parsed.Path != "" || parsed.RawQuery != "" || parsed.ForceQuery || parsed.Fragment != "":
		p.Add(key, "expected scheme, host and port alone, as in %s://%s", parsed.Scheme, parsed.Host)
	case !validPort(parsed.Port()):
		p.Add(key, "the port %q is not a number from 1 to 65535", parsed.Port())
	}
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// CheckGlob reports a pattern that doublestar cannot match with: "*" stays within a path element, "**" does not.
func (p *Problems) CheckGlob(key, pattern string) {
	if !p.required(key, pattern) {
		return
	}
	if !doublestar.ValidatePattern(pattern) {
		p.Add(key, "%q is not a pattern; such as ** for all, team/* or {a,b}/**", pattern)
	}
}

// CheckRepository reports a value that cannot be a repository's name.
func (p *Problems) CheckRepository(key, name string) {
	if !p.required(key, name) {
		return
	}
	if err := registry.ValidRepository(name); err != nil {
		p.Add(key, "%s", err)
	}
}

// CheckName reports a value that cannot be a node's or an operator's name, by the grammar that certificates follow.
func (p *Problems) CheckName(key, name string) {
	if !p.required(key, name) {
		return
	}
	if err := link.ValidName(name); err != nil {
		p.Add(key, "%s", err)
	}
}

// CheckProxy reports a reverse proxy that is configured by halves: the header that carries the user's name, and the
// prefixes of the addresses that it counts from.
func (p *Problems) CheckProxy(key, header string, trusted []string) {
	switch {
	case header == "" && len(trusted) > 0:
		p.Add(key+".header", "is required with %s.trusted", key)
	case header != "" && len(trusted) == 0:
		p.Add(key+".trusted", "is required with %s.header: without it the header would count from nobody", key)
	case strings.ContainsFunc(header, func(r rune) bool { return r != '-' && !isAlphanumeric(r) }):
		p.Add(key+".header", "%q is not the name of a header", header)
	}
	for i, prefix := range trusted {
		if _, err := netip.ParsePrefix(prefix); err != nil {
			p.Add(fmt.Sprintf("%s.trusted[%d]", key, i), "expected a prefix such as 10.1.0.0/16 or ::1/128, got %q", prefix)
		}
	}
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// Prefixes are those that CheckProxy found no fault with.
func Prefixes(texts []string) []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// CheckHost reports a value that is not the name of a host alone.
func (p *Problems) CheckHost(key, name string) {
	if !p.required(key, name) {
		return
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r != '-' && r != '.' && !isAlphanumeric(r) }) {
		p.Add(key, "expected a name such as status.example.com, without scheme and port, got %q", name)
	}
}
