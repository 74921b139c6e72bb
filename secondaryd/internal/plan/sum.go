package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Sum stands for a set of tags with their digests. It changes by one tag at a time, without the others being known:
// that is how a site which asks for single tags still knows what all of them should come to.
//
// It is the exclusive or of a SHA-256 for each (name, digest) pair: order does not matter, and adding a pair twice
// takes it out. It finds damage; it is no proof against somebody who chooses digests to collide. A name that begins with
// "@" is a manifest without a tag, which no listing of tags shows: it does not count.
type Sum [sha256.Size]byte

// SumOf returns the sum of a set; no name may occur twice.
func SumOf(tags []Tag) Sum {
	var s Sum
	for _, tag := range tags {
		s = s.Toggle(tag)
	}
	return s
}

// Toggle returns the sum with the pair put in, or taken out if it was in.
func (s Sum) Toggle(tag Tag) Sum {
	if strings.HasPrefix(tag.Name, "@") {
		return s
	}
	hash := sha256.Sum256([]byte(tag.Name + "\x00" + tag.Digest))
	for i := range s {
		s[i] ^= hash[i]
	}
	return s
}

// After returns the sum of the site's tags once the plan was applied in full, given the sum before.
func (s Sum) After(p Plan) Sum {
	for _, c := range p.Copies {
		for _, tag := range c.Tags {
			if tag.Previous != "" {
				s = s.Toggle(Tag{Name: tag.Name, Digest: tag.Previous})
			}
			s = s.Toggle(Tag{Name: tag.Name, Digest: c.Digest})
		}
	}
	for _, r := range p.Removals {
		s = s.Toggle(Tag{Name: r.Tag, Digest: r.Digest})
	}
	return s
}

// String returns the sum as 64 hexadecimal digits, the form in which it is stored.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// ParseSum reads what String wrote.
func ParseSum(text string) (Sum, error) {
	var s Sum
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(s) {
		return s, fmt.Errorf("%q is not the sum of a set of tags", text)
	}
	copy(s[:], raw)
	return s, nil
}
