<?php

declare(strict_types=1);

namespace PMP\Analytics;

use Closure;
use PMP\Analytics\Capture\Guard;
use Throwable;

/**
 * A callback that WordPress calls for us. All are added here, so that none can break a page: other plugins fire hooks with what
 * their authors thought of, and PHP refuses a wrong type with an error that nobody would catch.
 */
final class Hook
{
    private function __construct(private readonly Closure $callback)
    {
    }

    /**
     * @param callable $callback Called with what it declares; whatever else comes is reported, and nothing happens.
     */
    public static function action(string $name, callable $callback, int $priority = 10, int $arguments = 1): void
    {
        add_action($name, new self($callback(...)), $priority, $arguments);
    }

    /**
     * @param callable $callback Its answer replaces the first argument, which stays as it is when the callback fails.
     */
    public static function filter(string $name, callable $callback, int $priority = 10, int $arguments = 1): void
    {
        add_filter($name, new self($callback(...)), $priority, $arguments);
    }

    public function __invoke(mixed ...$arguments): mixed
    {
        try {
            // As WordPress itself would call it: a number that comes as text is a number.
            return call_user_func_array($this->callback, $arguments);
        } catch (Throwable $error) {
            Guard::report($error);
            return $arguments[0] ?? null;
        }
    }
}
