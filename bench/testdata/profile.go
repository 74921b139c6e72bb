// This file is no part of the daemons. `make bench PROFILE=1` builds them with it (go build -overlay): a CPU profile from
// the start of the process to SIGUSR1, in the file that ANTIPODE_BENCH_PROFILE names.
package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

func init() { //nolint:gochecknoinits // what is laid over a program has no other way into it
	path := os.Getenv("ANTIPODE_BENCH_PROFILE")
	if path == "" {
		return
	}
	file, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		panic(err)
	}
	enough := make(chan os.Signal, 1)
	signal.Notify(enough, syscall.SIGUSR1)
	go func() {
		<-enough
		pprof.StopCPUProfile()
		_ = file.Close()
	}()
}
