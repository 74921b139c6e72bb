//go:build !linux

package main

import "syscall"

// dieWithParent has no equivalent here: a killed program leaves its children behind.
func dieWithParent() *syscall.SysProcAttr { return nil }
