<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use Closure;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;

/**
 * Delivers the messages that a request recorded, or overdue ones, after its visitor has received the whole response. This also
 * works on sites whose visitors don't consent and whose tracker therefore never triggers a delivery. If the server can't end a
 * response early, nothing is delivered here, because the visitor would wait.
 */
final class AfterResponse implements Registerable
{
    private const SECONDS = 10.0;

    /**
     * @param Closure(): bool|null $finish Ends the response; null if the server can't.
     */
    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly Drainer $drainer,
        private readonly Overdue $overdue,
        private readonly ?Closure $finish,
    ) {
    }

    public function register(): void
    {
        if ($this->finish !== null) {
            // Last of all, since other shutdown functions may still write to the response.
            Hook::action('shutdown', [$this, 'deliver'], PHP_INT_MAX);
        }
    }

    public function deliver(): void
    {
        if ($this->finish === null || $this->queue->recorded() === [] && ! $this->overdue->is_on()) {
            return;
        }
        if (session_status() === PHP_SESSION_ACTIVE) {
            // Otherwise the visitor's next request would wait for this one's PHP session.
            session_write_close();
        }
        ignore_user_abort(true);
        if (($this->finish)()) {
            $this->drainer->drain(self::SECONDS);
        }
    }

    /**
     * The function that ends a response early; PHP-FPM and LiteSpeed have one.
     *
     * @return Closure(): bool|null
     */
    public static function finisher(): ?Closure
    {
        return match (true) {
            function_exists('fastcgi_finish_request') => static fn (): bool => fastcgi_finish_request(),
            function_exists('litespeed_finish_request') => static fn (): bool => (bool) litespeed_finish_request(),
            default => null,
        };
    }
}
