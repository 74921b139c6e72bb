//go:build !linux

package e2e

import "syscall"

// dieWithParent has no equivalent here: a killed test binary leaves its children behind.
func dieWithParent() *syscall.SysProcAttr { return nil }
