// See config.h.
#include "config.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checks.h"
#include "key.h"

static bool number(struct text text, size_t limit, size_t *value) {
  *value = 0;
  if (!text.length) return false;
  for (size_t i = 0; i < text.length; i++) {
    if (text.data[i] < '0' || text.data[i] > '9') return false;
    *value = *value * 10 + (size_t)(text.data[i] - '0');
    if (*value > limit) return false;
  }
  return true;
}

static bool token(struct text text, struct config *config) {
  if (!text.length || config->token) return false;
  for (size_t i = 0; i < text.length; i++)
    if (text.data[i] < ' ' || text.data[i] > '~') return false;
  config->token = malloc(text.length);
  if (!config->token) return false;
  memcpy(config->token, text.data, text.length);
  config->token_length = text.length;
  return true;
}

// One for the whole process, whose listeners each have a configuration. A router that cannot count
// serves nevertheless; its agent says so.
static struct ledger *the_ledger(struct text path) {
  static struct ledger *made;
  char name[4096] = {0};
  if (made || path.length >= sizeof name) return made;
  memcpy(name, path.data, path.length);
  return made = ledger_make(name);
}

static bool line(struct text text, struct config *config) {
  const char *space = memchr(text.data, ' ', text.length);
  if (!space) return false;
  struct span name = {(const uint8_t *)text.data, (size_t)(space - text.data)};
  struct text value = {space + 1, text.length - name.length - 1};
  if (IS(name, "prefix_bytes")) return number(value, kMaxPrefixBytes, &config->prefix_bytes);
  if (IS(name, "body_limit_bytes"))
    return number(value, (size_t)1 << 40, &config->body_limit_bytes);
  if (IS(name, "first_token_timeout_ms"))
    return number(value, (size_t)1 << 40, &config->first_token_timeout_ms);
  if (IS(name, "ledger")) return config->ledger = the_ledger(value), true;
  if (IS(name, "token")) return token(value, config);
  return false;
}

static bool parse(struct text text, struct config *config) {
  while (text.length) {
    const char *end = memchr(text.data, '\n', text.length);
    if (!end) return false;
    size_t length = (size_t)(end - text.data);
    if (!line((struct text){text.data, length}, config)) return false;
    text = (struct text){end + 1, text.length - length - 1};
  }
  return config->body_limit_bytes > 0;
}

void config_free(struct config *config) {
  free(config->token);
  free(config);
}

struct config *config_read(struct text text) {
  struct config *config = calloc(1, sizeof *config);
  if (!config) return NULL;
  if (parse(text, config)) return config;
  config_free(config);
  return NULL;
}
