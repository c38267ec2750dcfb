// A program with more code than two huge pages, which another thread runs all the while it is moved.
// Prints the executable mappings that belong to no file. `pages scarce` has no memory for a copy.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "pages.h"

enum { kAnswer = 42 };

int slide(void);  // 6 MiB of nothing, and then the answer
#if defined(__x86_64__)
__asm__(".text\n.globl slide\nslide:\n.fill 6291456, 1, 0x90\nmovl $42, %eax\nret\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl slide\nslide:\n.fill 1572864, 4, 0xd503201f\nmov w0, #42\nret\n");
#endif

static atomic_int slides, wrong, stopped;

static void *run(void *unused) {
  while (!stopped) {
    if (slide() != kAnswer) wrong = 1;
    slides++;
  }
  return unused;
}

static void await_slides(int more) {
  for (int wanted = slides + more; slides < wanted;) continue;
}

static void leave_no_memory(void) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%lu", &pages) != 1) return;
  fclose(file);
  struct rlimit limit = {pages * 4096 + (1 << 20), RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &limit);
}

static void print_copies(void) {
  char line[512], rights[5];
  unsigned long begin, end, inode;
  FILE *file = fopen("/proc/self/maps", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &begin, &end, rights, &inode) == 4 && !inode &&
        rights[2] == 'x' && !strchr(line, '['))
      printf("%lu\n", end - begin);
  if (file) fclose(file);
}

int main(int count, char **words) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, NULL)) return 2;
  await_slides(1);
  if (count > 1 && !strcmp(words[1], "scarce")) leave_no_memory();
  use_huge_pages();
  await_slides(3);
  stopped = 1;
  pthread_join(thread, NULL);
  print_copies();
  return wrong;
}
