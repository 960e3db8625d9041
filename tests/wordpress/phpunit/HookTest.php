<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use Closure;
use PMP\Analytics\Hook;
use ReflectionFunction;
use stdClass;
use Throwable;
use WP_Error;

/**
 * Other plugins fire hooks with what their authors thought of: no page breaks of it.
 */
final class HookTest extends SiteTestCase
{
    private const FILTERS = ['cron_schedules', 'script_loader_tag', 'site_status_tests', 'wp_privacy_personal_data_exporters'];

    private string $log;

    protected function setUp(): void
    {
        parent::setUp();
        $this->log = (string) ini_set('error_log', '/dev/null');
    }

    protected function tearDown(): void
    {
        ini_set('error_log', $this->log);
        parent::tearDown();
    }

    public function test_no_callback_of_ours_is_added_past_the_guard(): void
    {
        $unguarded = [];
        foreach (self::callbacks() as [$name, $callback]) {
            if (! $callback instanceof Hook && self::is_ours($callback)) {
                $unguarded[] = $name;
            }
        }

        // WordPress's own calls: the plugin is turned on or off, its option is saved.
        $own = ['plugins_loaded', 'sanitize_option_pmp_analytics'];
        self::assertSame([], array_filter(
            $unguarded,
            static fn (string $name): bool => ! in_array($name, $own, true) && preg_match('/^(de)?activate_/', $name) !== 1,
        ));
    }

    public function test_rubbish_in_any_hook_of_ours_breaks_nothing(): void
    {
        $fired = [];
        foreach (self::callbacks() as [$name, $callback, $accepted]) {
            // What ends a request would end the test as well; it is wp-admin's own, protected by a capability and a nonce.
            if (! $callback instanceof Hook || $name === 'shutdown' || str_starts_with($name, 'admin_post_')) {
                continue;
            }
            $fired[$name] = true;
            foreach (self::rubbish() as $what => $value) {
                foreach ([0, 1, max(1, $accepted)] as $given) {
                    try {
                        $answer = $callback(...array_fill(0, $given, $value));
                    } catch (Throwable $error) {
                        self::fail("{$name} with {$given} times {$what}: {$error}");
                    }
                    if ($given > 0 && in_array($name, self::FILTERS, true) && ! is_scalar($value) && ! is_array($value)) {
                        self::assertSame($value, $answer, "{$name} keeps what it can't read");
                    }
                }
            }
        }

        self::assertGreaterThan(30, count($fired));
        foreach (['user_register', 'wp_login', 'profile_update', 'learndash_update_course_access', 'wpforms_process_complete'] as $name) {
            self::assertArrayHasKey($name, $fired);
        }
    }

    public function test_a_number_that_comes_as_text_is_a_number(): void
    {
        $user_id = $this->customer();

        do_action('llms_user_enrolled_in_course', (string) $user_id, '77');
        do_action('tutor_after_enrolled', '78', (string) $user_id);

        $courses = array_map(static fn (array $message): mixed => $message['payload']['metadata']['course_id'] ?? null, $this->outbox());
        self::assertSame(['77', '78'], array_values(array_unique(array_filter($courses))));
    }

    /**
     * @return iterable<array{string, mixed, int}> Name of the hook, callback and how many arguments it is given.
     */
    private static function callbacks(): iterable
    {
        foreach ($GLOBALS['wp_filter'] as $name => $hook) {
            foreach ($hook->callbacks as $callbacks) {
                foreach ($callbacks as $callback) {
                    yield [(string) $name, $callback['function'], (int) $callback['accepted_args']];
                }
            }
        }
    }

    /**
     * @return array<string, mixed>
     */
    private static function rubbish(): array
    {
        return [
            'null' => null,
            'false' => false,
            'an error' => new WP_Error('broken', 'Broken'),
            'an object' => new stdClass(),
            'an array' => [],
            'a list' => [null, [], new stdClass()],
            'an empty text' => '',
            'a text' => 'rubbish',
            'a broken text' => "\xff\xfe",
            'a negative number' => -1,
            'a fraction' => 1.5,
            'a number too large' => PHP_INT_MAX,
            'not a number' => NAN,
        ];
    }

    private static function is_ours(mixed $callback): bool
    {
        $class = match (true) {
            is_array($callback) => is_object($callback[0]) ? $callback[0]::class : (string) $callback[0],
            $callback instanceof Closure => (string) (new ReflectionFunction($callback))->getClosureScopeClass()?->getName(),
            is_object($callback) => $callback::class,
            default => (string) $callback,
        };
        return str_starts_with($class, 'PMP') && ! str_starts_with($class, __NAMESPACE__);
    }
}
