package checkup

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
)

// ProbeTag is the tag that a doctor on this machine probes with, for one registry. Two machines do not get into each
// other's way, and one that cannot take its probe back leaves one and not one for each visit.
func ProbeTag(registryURL string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	sum := sha256.Sum256([]byte(host + "\n" + registryURL))
	return "doctor-" + hex.EncodeToString(sum[:6])
}
