// Package deploy holds the tests of what an operator takes from this folder: the image, the compose file, the Kubernetes
// manifests and the systemd units. Each is read by a parser of its own format that refuses what it does not know, and the
// configurations in them start the real daemons.
package deploy
