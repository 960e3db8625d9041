<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Api\Outcome;
use PMP\Analytics\Api\Reply;
use PMP\Analytics\Clock;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\StoredMessage;
use PMP_API_Client;
use PMP_Event_Queue;

/**
 * Delivers the outbox to the mesh. A message leaves the outbox only when the mesh has confirmed it.
 *
 * Must not be called while a visitor waits for a page or a buyer for the checkout.
 */
final class Drainer
{
    /** After this many consecutive failures the mesh is considered to be failing, not the messages. */
    private const FAILURES_IN_A_ROW = 3;

    private int $failed_in_a_row = 0;

    private bool $stopped = false;

    private bool $delivered = false;

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly PMP_API_Client $client,
        private readonly Lease $lease,
        private readonly Pause $pause,
        private readonly Clock $clock,
    ) {
    }

    /**
     * Delivers until nothing is due, the mesh is unavailable, or the time is up.
     *
     * @param float $seconds No call starts later than this.
     */
    public function drain(float $seconds): void
    {
        if (! $this->has_work() || ! $this->lease->acquire()) {
            return;
        }
        $this->failed_in_a_row = 0;
        $this->stopped = false;
        $this->delivered = false;
        try {
            $this->drain_until($this->clock->now() + $seconds);
        } finally {
            if ($this->delivered && ! $this->stopped) {
                $this->pause->end();
            }
            $this->lease->release();
        }
    }

    /**
     * Whether messages are due and delivery is not paused.
     */
    public function has_work(): bool
    {
        return ! $this->pause->is_on() && $this->queue->has_due();
    }

    private function drain_until(float $deadline): void
    {
        while (! $this->stopped && ($messages = $this->queue->due(Batches::MAX_EVENTS, Batches::MAX_BYTES)) !== []) {
            foreach (Batches::of($messages) as $batch) {
                if ($this->stopped || $this->clock->now() >= $deadline || ! $this->lease->renew()) {
                    return;
                }
                $this->deliver($batch);
            }
        }
    }

    /**
     * @param non-empty-list<StoredMessage> $batch
     */
    private function deliver(array $batch): void
    {
        $reply = $this->send($batch);
        $outcome = $reply->outcome();
        if ($reply->status === 404 && $batch[0]->target === '') {
            // The path has no target that could be missing, so the gateway or service is.
            $outcome = Outcome::Unavailable;
        }
        if ($outcome === Outcome::Accepted && $batch[0]->kind === Kind::Event) {
            $outcome = $this->settle($batch, $reply);
        } elseif ($outcome === Outcome::Accepted) {
            $this->queue->delivered(...$batch);
        }
        match ($outcome) {
            Outcome::Accepted => $this->succeeded(),
            Outcome::Refused => $this->refused($batch, $reply),
            Outcome::Failed => $this->failed($batch, $reply),
            Outcome::Unavailable => $this->stop($reply),
        };
    }

    /**
     * @param non-empty-list<StoredMessage> $batch
     */
    private function send(array $batch): Reply
    {
        $first = $batch[0];
        $json = $first->kind === Kind::Event
            ? '{"events":[' . implode(',', array_map(static fn (StoredMessage $event): string => $event->json, $batch)) . ']}'
            : $first->json;
        return $this->client->call($first->kind->method(), $first->kind->path($first->target), $json);
    }

    /**
     * Applies the result of each event.
     *
     * @param non-empty-list<StoredMessage> $batch
     */
    private function settle(array $batch, Reply $reply): Outcome
    {
        $verdicts = $reply->body['results'] ?? null;
        if (! is_array($verdicts) || count($verdicts) !== count($batch)) {
            return Outcome::Failed;
        }
        $accepted = [];
        foreach (array_values($verdicts) as $index => $verdict) {
            if (! empty($verdict['success'])) {
                $accepted[] = $batch[$index];
            } else {
                $this->queue->set_aside($batch[$index], $this->broken_rules((array) ($verdict['violations'] ?? [])));
            }
        }
        $this->queue->delivered(...$accepted);
        return Outcome::Accepted;
    }

    /**
     * Halves a refused batch until the invalid event is alone.
     *
     * @param non-empty-list<StoredMessage> $batch
     */
    private function refused(array $batch, Reply $reply): void
    {
        $this->failed_in_a_row = 0;
        if (count($batch) === 1) {
            $this->queue->set_aside($batch[0], $reply->reason());
            return;
        }
        foreach (array_chunk($batch, intdiv(count($batch) + 1, 2)) as $half) {
            if (! $this->stopped && $this->lease->renew()) {
                $this->deliver($half);
            }
        }
    }

    /**
     * @param non-empty-list<StoredMessage> $batch
     */
    private function failed(array $batch, Reply $reply): void
    {
        $attempts = max(array_map(static fn (StoredMessage $message): int => $message->attempts, $batch)) + 1;
        $this->queue->postpone($batch, Backoff::seconds($attempts, random_int(0, 1000) / 1000));
        if (++$this->failed_in_a_row >= self::FAILURES_IN_A_ROW) {
            $this->stop($reply);
        }
    }

    private function succeeded(): void
    {
        $this->delivered = true;
        $this->failed_in_a_row = 0;
    }

    private function stop(Reply $reply): void
    {
        $this->stopped = true;
        $this->pause->begin($reply->reason(), $reply->retry_after);
    }

    /**
     * @param array<mixed> $violations
     */
    private function broken_rules(array $violations): string
    {
        $lines = array_map(
            static fn (mixed $violation): string => is_array($violation)
                ? ($violation['field'] ?? '') . ': ' . ($violation['description'] ?? '')
                : '',
            $violations,
        );
        return implode('; ', array_filter($lines)) ?: 'refused without a reason';
    }
}
